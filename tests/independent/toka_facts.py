"""Arguments of calls: canonical JSON, and the facts that a tool declares in them."""

import re

from toka_caps import CapError, check_host, path_fact

MAX_ARGUMENTS = 1 << 20
MAX_DEPTH = 32
STRING = re.compile(rb'"((?:[^"\\\x00-\x1f]|\\["\\btnfr]|\\u00(?:0[0-7bef]|1[0-9a-f]))*)"')
ESCAPE = re.compile(r'\\(?:u00(..)|(.))')
NUMBER = re.compile(rb"[-+.eE0-9]+")
INTEGER = re.compile(rb"(?:0|-?[1-9][0-9]*)\Z")
FIXED = re.compile(rb"-?(?:0\.0{0,5}[1-9][0-9]*|[1-9][0-9]{0,14}\.[0-9]+)\Z")
SCIENTIFIC = re.compile(rb"-?([1-9](?:\.[0-9]*[1-9])?)e(-?[1-9][0-9]*)\Z")
LETTERS = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}
INT, BOOL, STR, PATH, HOST = 1, 2, 3, 4, 5


class ArgumentError(Exception):
    """Arguments that are not canonical JSON, or whose facts are of another type."""


class _Walk:
    def __init__(self, data, declared):
        self.data, self.at, self.extra, self.found = data, 0, False, {}
        self.declared = {tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]):
                         (pointer, typ) for pointer, typ in declared.items()}
        self.inner = {path[:n] for path in self.declared for n in range(len(path))}

    def expect(self, literal):
        if not self.data.startswith(literal, self.at):
            raise ArgumentError(f"byte {self.at}")
        self.at += len(literal)

    def eat(self, literal):
        if self.data.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def string(self):
        match = STRING.match(self.data, self.at)
        if not match:
            raise ArgumentError(f"string at byte {self.at}")
        self.at = match.end()
        return ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else LETTERS.get(m[2], m[2]), match[1].decode())

    def value(self, path, depth, in_array):
        """Read a value; `path` is where it stands, or None where no fact can stand at or below it."""
        fact = self.declared.get(path) if path is not None else None
        at = self.at
        if self.data[at:at + 1] in (b"{", b"["):
            if fact or depth == MAX_DEPTH:
                raise ArgumentError(f"a container at byte {at}")
            self.at += 1
            (self.members if self.data[at:at + 1] == b"{" else self.elements)(path, depth, in_array)
        elif self.data[at:at + 1] == b'"':
            self.scalar(fact, STR, self.string(), in_array)
        elif self.eat(b"true"):
            self.scalar(fact, BOOL, 1, in_array)
        elif self.eat(b"false"):
            self.scalar(fact, BOOL, 0, in_array)
        elif self.eat(b"null"):
            self.scalar(fact, None, None, in_array)
        else:
            self.number(fact, in_array)

    def below(self, path, token):
        inner = path + (token,) if path is not None else None
        return inner if inner in self.inner or inner in self.declared else None

    def members(self, path, depth, in_array):
        if self.eat(b"}"):
            self.extra |= depth > 0
            return
        last = None
        while True:
            name = self.string()
            if last is not None and last >= name.encode():
                raise ArgumentError(f"names do not ascend at byte {self.at}")
            last = name.encode()
            self.expect(b":")
            self.value(self.below(path, name), depth + 1, in_array)
            if not self.eat(b","):
                self.expect(b"}")
                return

    def elements(self, path, depth, in_array):
        if self.eat(b"]"):
            self.extra = True
            return
        index = 0
        while True:
            self.value(self.below(path, str(index)), depth + 1, True)
            index += 1
            if not self.eat(b","):
                self.expect(b"]")
                return

    def number(self, fact, in_array):
        match = NUMBER.match(self.data, self.at)
        token = match[0] if match else b""
        self.at += len(token)
        if INTEGER.match(token) and -2**63 <= int(token[:20]) < 2**63 and len(token) <= 20:
            self.scalar(fact, INT, int(token), in_array)
            return
        digits = re.sub(rb"[^0-9]", b"", token.split(b"e")[0]).lstrip(b"0")
        real = SCIENTIFIC.match(token)
        fits = real and (-324 < int(real[2][:5]) < -6 or 14 < int(real[2][:5]) < 308
                         or (real[2] == b"-324" and real[1] == b"5")
                         or (real[2] == b"308" and real[1] <= b"1.7976931348623157"))
        if len(digits) > 17 or not (fits or (FIXED.match(token) and not token.endswith(b"0"))):
            raise ArgumentError(f"number before byte {self.at}")
        self.scalar(fact, None, None, in_array)

    def scalar(self, fact, typ, value, in_array):
        if fact is None:
            self.extra = True
            return
        pointer, declared = fact
        wanted = STR if declared in (STR, PATH, HOST) else declared
        if typ != wanted or (declared in (PATH, HOST) and in_array):
            raise ArgumentError(f"another type at {pointer}")
        text = value if typ == STR else None
        if text is not None and len(text.encode()) > 256:
            raise ArgumentError(f"too long at {pointer}")
        try:
            if declared == PATH:
                path_fact(text)
            elif declared == HOST:
                text = check_host(text.lower().removesuffix("."))
        except CapError:
            raise ArgumentError(f"no path or host at {pointer}") from None
        self.found[pointer] = {"ptr": pointer, "int": value if typ != STR else None, "text": text}


def extract(data, declared):
    """The facts in arguments, in the order they are declared, and whether the arguments hold more than these."""
    if len(data) > MAX_ARGUMENTS:
        raise ArgumentError("too long")
    try:
        data.decode()
    except UnicodeDecodeError:
        raise ArgumentError("no UTF-8") from None
    walk = _Walk(data, declared)
    walk.value((), 0, False)
    if walk.at != len(data):
        raise ArgumentError("bytes behind the value")
    return [walk.found[pointer] for pointer in declared if pointer in walk.found], walk.extra
