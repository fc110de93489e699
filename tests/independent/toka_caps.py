"""Capabilities: their text, its canonical form, and the order between them (docs/AUTHORITY.md).

Refused by name: the kinds net, proc, code and secret. A template of a need is a capability with holes `{/pointer}`;
it is parsed with the facts of a call at hand, which fill the holes.
"""

import ipaddress
import re
import unicodedata
from functools import lru_cache

FS_OPS = ("create", "delete", "delete-self", "exec", "list", "read", "write")
ADMIN_OPS = ("approve", "cancel", "erase", "export", "grant-root", "keys", "members", "open-session", "pause", "policy",
             "read-log", "register-tool", "resolve", "revoke-any", "unconfined")
AMOUNTS = ("calls", "bytes_in", "bytes_out", "tokens", "cost_micro", "wall_us", "cpu_us")
DIM = {name: number for number, name in enumerate(
    ("kind root scheme profile name path ops host ports methods env lang admin digest exe args closed live calls "
     "bytes_in bytes_out tokens cost_micro wall_us cpu_us rate time gates answers depth children grants in_flight "
     "pending nonces agents tasks").split(), 1)}
MAX_TIME = 2**53 - 1
SEGMENT = re.compile(r"[A-Za-z0-9._@+~-]+")
NAME_SEGMENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
NUMBER = re.compile(r"(?:0|[1-9][0-9]*)\Z")
HOST_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
HOLE = re.compile(r"\{(/[^}]*)\}")


class CapError(Exception):
    """A text that is no capability: its refusal code, 101 to 105."""

    def __init__(self, code, detail=""):
        super().__init__(detail)
        self.code = code


class MissingFact(Exception):
    """A hole over a fact that the call does not have."""


# --- parts of texts ------------------------------------------------------------------------------------------------

def is_name(text):
    parts = text.split(".")
    return len(parts) <= 8 and all(NAME_SEGMENT.match(part) for part in parts)


def is_pattern(text):
    if text == "*" or is_name(text):
        return True
    return text.endswith(".*") and is_name(text[:-2]) and text.count(".") <= 7


def pattern_covers(parent, child):
    if parent == "*" or parent == child:
        return True
    return parent.endswith(".*") and child.startswith(parent[:-1])


INVISIBLE = frozenset(map(chr, (0x61C, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060,
                               *range(0x2066, 0x206A), 0xFEFF)))


def forbidden(character):
    """A character that is written as an escape and cannot stand in a path: controls, and what turns or hides text."""
    return unicodedata.category(character) == "Cc" or character in INVISIBLE


def check_segment(segment):
    if segment in ("", ".", "..") or "/" in segment or "\\" in segment or any(map(forbidden, segment)) \
            or len(segment.encode()) > 255:
        raise CapError(103, "not a path segment")


def path_fact(text):
    """The root and the segments of a path fact `ROOT:a/b`."""
    root, colon, rest = text.partition(":")
    if not colon or not NAME_SEGMENT.match(root) or len(text.encode()) > 4_096:
        raise CapError(103, "no root")
    segments = tuple(rest.split("/")) if rest else ()
    for segment in segments:
        check_segment(segment)
    return root, segments


def check_host(text):
    """A host: a name in lower case, `*.` in front of one, an address, or a network of addresses."""
    name = text[2:] if text.startswith("*.") else text
    labels = name.split(".")
    if len(name) <= 253 and all(HOST_LABEL.match(label) for label in labels) and not labels[-1].isdigit():
        return text
    try:
        net = ipaddress.ip_network(text.strip("[]"))
    except ValueError:
        raise CapError(104, "not a host") from None
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)


def host_covers(parent, child):
    if parent == child:
        return True
    if parent.startswith("*."):
        return child.endswith(parent[1:]) and child != parent[2:]
    try:
        outer, inner = ipaddress.ip_network(parent), ipaddress.ip_network(child)
    except ValueError:
        return False
    return outer.version == inner.version and inner.subnet_of(outer)


def quote(text):
    """Text in quotes, in its one form."""
    out = []
    for character in text:
        if character in '"\\':
            out.append("\\" + character)
        elif forbidden(character):
            out.append(f"\\u{{{ord(character):x}}}")
        else:
            out.append(character)
    return '"' + "".join(out) + '"'


def segment_text(segment):
    return segment if SEGMENT.fullmatch(segment) else quote(segment)


def pointer_text(pointer):
    return pointer if re.fullmatch(r"[A-Za-z0-9._@+~/-]+", pointer) else quote(pointer)


def is_pointer(text):
    return text.startswith("/") and 1 <= len(text.encode()) <= 256 and not re.search(r"~(?![01])", text)


def number(text, highest, code=105):
    digits = text.replace("_", "") if re.fullmatch(r"[0-9]+(_[0-9]+)*", text) else text
    if not NUMBER.match(digits) or int(digits) > highest:
        raise CapError(code, "not a number in bounds")
    return int(digits)


# --- constraints of arguments --------------------------------------------------------------------------------------

def value_key(value):
    """Order of values: false, true, integers, strings."""
    if isinstance(value, bool):
        return (0, int(value))
    return (1, value) if isinstance(value, int) else (2, value.encode())


def value_text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else quote(value)


def constraint_text(constraint):
    kind, value = constraint
    if kind == "set":
        return "|".join(value_text(v) for v in sorted(value, key=value_key))
    if kind == "range":
        return f"{value[0]}..{value[1]}"
    if kind == "len":
        return f"len<={value}"
    if kind == "path":
        return "path:" + path_text(*value)
    return "host:" + value if kind == "host" else "absent"


def implies(child, parent):
    """Whether every value that meets `child` meets `parent`; None is a child without a constraint."""
    if child is None:
        return False
    (kind, value), (want, bound) = child, parent
    if kind == "set" and want == "set":
        return {value_key(v) for v in value} <= {value_key(v) for v in bound}
    if kind == "set" and want == "range":
        return all(not isinstance(v, (bool, str)) and bound[0] <= v <= bound[1] for v in value)
    if kind == "set" and want == "len":
        return all(isinstance(v, str) and len(v.encode()) <= bound for v in value)
    if kind != want:
        return False
    if kind == "range":
        return bound[0] <= value[0] and value[1] <= bound[1]
    if kind == "len":
        return value <= bound
    if kind == "path":
        return value[0] == bound[0] and path_covers(bound, value)
    return host_covers(bound, value) if kind == "host" else True


def path_text(root, segments, tree):
    return "/".join([root, *map(segment_text, segments)]) + ("/**" if tree else "")


def path_covers(parent, child):
    """Whether a path (root, segments, tree) covers another of the same root."""
    _, segments, tree = parent
    if not tree:
        return child[1] == segments and not child[2]
    return child[1][:len(segments)] == segments


class Cap:
    """A parsed capability."""

    def __init__(self, kind):
        self.kind, self.path, self.ops, self.name = kind, None, frozenset(), None
        self.use, self.depth, self.live, self.rate, self.nbf, self.exp = "yes", 0, None, None, None, None
        self.digest, self.args, self.closed, self.gates = None, {}, False, ()
        self.amounts = [None] * 7

    def scope(self):
        if self.kind == "fs":
            return "fs:" + path_text(*self.path) + "#" + ",".join(sorted(self.ops))
        if self.kind == "admin":
            return "admin:#" + ",".join(sorted(self.ops))
        return f"{self.kind}:{self.name}"

    def text(self):
        """The canonical text."""
        keys = []
        if self.use != "yes":
            keys.append("use=" + self.use)
        if self.depth:
            keys.append(f"depth={self.depth}")
        if self.digest:
            keys.append("digest=" + ",".join(sorted(self.digest)))
        keys += [f"arg.{pointer_text(pointer)}={constraint_text(self.args[pointer])}"
                 for pointer in sorted(self.args, key=str.encode)]
        if self.closed:
            keys.append("closed")
        if self.live is not None:
            keys.append(f"live={self.live}")
        keys += [f"{name}={value}" for name, value in zip(AMOUNTS, self.amounts) if value is not None]
        if self.rate:
            keys.append(f"rate={self.rate[0]}/{self.rate[1]}")
        if self.nbf is not None:
            keys.append(f"nbf={self.nbf}")
        if self.exp is not None:
            keys.append(f"exp={self.exp}")
        if self.gates:
            keys.append("gate=" + ",".join(self.gates))
        return self.scope() + ("?" + "&".join(keys) if keys else "")


# --- parsing -------------------------------------------------------------------------------------------------------

class _Parser:
    def __init__(self, text, facts, now):
        self.text, self.at, self.facts, self.now = text, 0, facts, now

    def peek(self, literal):
        return self.text.startswith(literal, self.at)

    def accept(self, literal):
        if self.peek(literal):
            self.at += len(literal)
            return True
        return False

    def until(self, stops):
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in stops:
            self.at += 1
        return self.text[start:self.at]

    def hole(self):
        """The value of the fact in a hole that stands here, or None where none does."""
        match = HOLE.match(self.text, self.at)
        if not match:
            return None
        if self.facts is None:
            raise CapError(101, "a hole")
        self.at = match.end()
        if match[1] not in self.facts:
            raise MissingFact(match[1])
        return self.facts[match[1]]

    def quoted(self):
        out = []
        self.at += 1
        while True:
            if self.at >= len(self.text):
                raise CapError(101, "a quote without end")
            character = self.text[self.at]
            self.at += 1
            if character == '"':
                return "".join(out)
            if character == "\\":
                match = re.compile(r'["\\]|u\{([0-9a-f]{1,6})\}').match(self.text, self.at)
                if not match:
                    raise CapError(101, "not an escape")
                self.at = match.end()
                code = int(match[1], 16) if match[1] else ord(match[0])
                if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                    raise CapError(101, "not an escape")
                character = chr(code)
            out.append(character)

    def path(self):
        fact = self.hole()
        if fact:
            root, segments = path_fact(fact[1])
        else:
            root, segments = self.until("/#?&|"), ()
            if not NAME_SEGMENT.match(root):
                raise CapError(103, "no root")
        segments = list(segments)
        while self.accept("/"):
            if self.accept("**"):
                return root, tuple(segments), True
            fact = self.hole()
            if fact:
                segment = str(fact[1])
            elif self.peek('"'):
                segment = self.quoted()
            else:
                match = SEGMENT.match(self.text, self.at)
                segment = match[0] if match else ""
                self.at += len(segment)
            check_segment(segment)
            segments.append(segment)
            if len(segments) > 64:
                raise CapError(103, "too many segments")
        return root, tuple(segments), False

    def operations(self, known):
        if not self.accept("#"):
            raise CapError(101, "no operations")
        found = self.until("?").split(",")
        if len(set(found)) != len(found) or not set(found) <= set(known):
            raise CapError(101, "not an operation, or one twice")
        return frozenset(found)

    def capability(self):
        kind = self.until(":")
        if kind not in ("fs", "tool", "agent", "model", "admin") or not self.accept(":"):
            raise CapError(101, "no kind of capability")
        cap = Cap(kind)
        if kind == "fs":
            cap.path = self.path()
            if not (self.peek("#") or self.peek("?") or self.at == len(self.text)):
                raise CapError(103, "the path does not end here")
            cap.ops = self.operations(FS_OPS)
            if "delete" in cap.ops and not cap.path[2]:
                raise CapError(101, "nothing to delete below one path")
        elif kind == "admin":
            cap.ops = self.operations(ADMIN_OPS)
        else:
            name = []
            while self.at < len(self.text) and self.text[self.at] != "?":
                fact = self.hole()
                name.append(str(fact[1]) if fact else self.text[self.at])
                self.at += 0 if fact else 1
            cap.name = "".join(name)
            if not is_pattern(cap.name):
                raise CapError(102, "not a name")
        if self.accept("?"):
            self.keys(cap)
        if self.at != len(self.text):
            raise CapError(101, "text after the end")
        if cap.closed:
            cap.args = {pointer: c for pointer, c in cap.args.items() if c[0] != "absent"}
        if (cap.nbf or 0) >= (MAX_TIME + 1 if cap.exp is None else cap.exp):
            raise CapError(101, "a capability that is never valid")
        return cap

    def keys(self, cap):
        seen = set()
        while True:
            if self.accept("arg."):
                self.argument(cap)
            else:
                key = self.until("=&")
                if key in seen or not key:
                    raise CapError(101, "no key, or one twice")
                seen.add(key)
                self.key(cap, key)
            if self.at == len(self.text):
                return
            if not self.accept("&"):
                raise CapError(101, "a key does not end here")

    def key(self, cap, key):
        if key == "closed":
            if cap.kind != "tool":
                raise CapError(101, "no key `closed` here")
            cap.closed = True
            return
        if not self.accept("="):
            raise CapError(101, "a key without a value")
        value = self.until("&")
        if key == "use" and value in ("yes", "convey", "no"):
            cap.use = value
        elif key == "depth":
            cap.depth = number(value, 15)
        elif key == "digest" and cap.kind == "tool":
            digests = value.split(",")
            if len(set(digests)) != len(digests) or len(digests) > 16 \
                    or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
                raise CapError(101, "no set of digests")
            cap.digest = frozenset(digests)
        elif key == "live" and cap.kind == "agent":
            cap.live = number(value, 2**32 - 1)
        elif key in AMOUNTS:
            cap.amounts[AMOUNTS.index(key)] = self.amount(key, value)
        elif key == "rate":
            match = re.fullmatch(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,16})", value)
            rate = match and (int(match[1]), int(match[2]))
            if not rate or rate[0] > 10**6 or rate[0] * rate[1] > 10**16:
                raise CapError(101, "not a rate")
            cap.rate = rate
        elif key in ("nbf", "exp"):
            setattr(cap, key, self.time(value))
        elif key == "gate":
            gates = value.split(",")
            if not all(is_name(gate) for gate in gates):
                raise CapError(102, "not the name of a policy")
            if len(set(gates)) != len(gates) or len(gates) > 8:
                raise CapError(101, "a gate twice")
            cap.gates = tuple(sorted(gates))
        else:
            raise CapError(101, f"no key `{key}` here, or not a value of it")

    def amount(self, key, value):
        match = re.fullmatch(r"(.*?)([KMG]i?B)?", value)
        unit = match[2]
        if unit and not key.startswith("bytes"):
            raise CapError(105, "not an amount")
        scale = (1024 if unit and "i" in unit else 1000) ** ("KMG".index(unit[0]) + 1) if unit else 1
        result = number(match[1], 2**64 - 1) * scale
        if result >= 2**64:
            raise CapError(105, "not an amount")
        return result

    def time(self, value):
        if value == "never":
            return MAX_TIME
        match = re.fullmatch(r"\+([0-9]{1,16})(us|ms|s|m|h|d)", value)
        if match and self.now is not None:
            scale = {"us": 1, "ms": 10**3, "s": 10**6, "m": 6 * 10**7, "h": 36 * 10**8, "d": 864 * 10**8}[match[2]]
            value = str(self.now + int(match[1]) * scale)
        return number(value, MAX_TIME)

    def argument(self, cap):
        if cap.kind != "tool":
            raise CapError(101, "an argument of something else than a tool")
        pointer = self.quoted() if self.peek('"') else self.until("=&")
        if not is_pointer(pointer):
            raise CapError(101, "not a JSON pointer")
        if pointer in cap.args or len(cap.args) == 32:
            raise CapError(101, "an argument twice, or too many")
        if not self.accept("="):
            raise CapError(101, "an argument without a constraint")
        cap.args[pointer] = self.constraint()

    def constraint(self):
        if self.accept("len<="):
            return "len", number(self.until("&"), 2**32 - 1)
        if self.accept("path:"):
            path = self.path()
            if self.at < len(self.text) and self.text[self.at] != "&":
                raise CapError(103, "the path does not end here")
            return "path", path
        if self.accept("host:"):
            return "host", check_host(self.until("&"))
        if self.accept("absent"):
            return "absent", None
        values = [self.value()]
        if self.accept(".."):
            low, high = values[0], self.value()
            if any(isinstance(v, (bool, str)) for v in (low, high)) or low > high:
                raise CapError(101, "not a range")
            return "range", (low, high)
        while self.accept("|"):
            values.append(self.value())
        if len({value_key(v) for v in values}) != len(values) or len(values) > 64:
            raise CapError(101, "a value twice, or too many")
        return "set", tuple(values)

    def value(self):
        fact = self.hole()
        if fact:
            return bool(fact[1]) if fact[0] == 2 else fact[1]
        if self.peek('"'):
            return self.quoted()
        if self.accept("true"):
            return True
        if self.accept("false"):
            return False
        match = re.compile(r"-?[0-9]+(?:_[0-9]+)*").match(self.text, self.at)
        digits = match[0].replace("_", "") if match else ""
        if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", digits) or not -2**63 <= int(digits) < 2**63:
            raise CapError(101, "not a value")
        self.at = match.end()
        return int(digits)


def parse(text, facts=None, now=None):
    """Parse a capability; `facts` fills holes as {pointer: (type, value)}, `now` resolves `exp=+30m`."""
    if len(text.encode()) > 8_192:
        raise CapError(101, "longer than 8,192 bytes")
    return _Parser(text, facts, now).capability()


@lru_cache(maxsize=2048)
def canonical(text):
    """Parse a text that must be canonical. The result is shared: it must not be changed."""
    cap = parse(text)
    if cap.text() != text or len(text.encode()) > 4_096:
        raise CapError(101, "not the canonical text")
    return cap


# --- the order -----------------------------------------------------------------------------------------------------

def scope_row(child, parent):
    """The first row in which the scope of `child` is not within that of `parent`, or None."""
    if child.kind != parent.kind:
        return "kind"
    if child.kind == "fs":
        if child.path[0] != parent.path[0]:
            return "root"
        if not path_covers(parent.path, child.path):
            return "path"
        allowed = set(parent.ops)
        if child.path[1] != parent.path[1]:  # strictly below: there it is `delete` that covers `delete-self`
            allowed = allowed - {"delete-self"} | ({"delete-self"} if "delete" in parent.ops else set())
        return None if child.ops <= allowed else "ops"
    if child.kind == "admin":
        return None if child.ops <= parent.ops else "admin"
    if not pattern_covers(parent.name, child.name):
        return "name"
    if parent.digest and not (child.digest and child.digest <= parent.digest):
        return "digest"
    for pointer, bound in parent.args.items():
        mine = child.args.get(pointer, ("absent", None) if child.closed else None)
        if not implies(mine, bound):
            return "args"
    if parent.closed and not (child.closed and child.args.keys() <= parent.args.keys()):
        return "closed"
    if parent.live is not None and (child.live is None or child.live > parent.live):
        return "live"
    return None


def row(child, parent):
    """The first row in which `child` reaches further than `parent`, or None."""
    found = scope_row(child, parent)
    if found:
        return found
    for name, mine, bound in zip(AMOUNTS, child.amounts, parent.amounts):
        if bound is not None and (mine is None or mine > bound):
            return name
    if parent.rate and not (child.rate and child.rate[1] >= parent.rate[1] and child.rate[0] <= parent.rate[0]):
        return "rate"
    begins, ends = child.nbf or 0, MAX_TIME + 1 if child.exp is None else child.exp
    if begins < (parent.nbf or 0) or ends > (MAX_TIME + 1 if parent.exp is None else parent.exp) or begins >= ends:
        return "time"
    return None if set(parent.gates) <= set(child.gates) else "gates"


def fill(child, parent):
    """Copy from the parent what the child leaves out and does not widen by it."""
    child.amounts = [bound if mine is None else mine for mine, bound in zip(child.amounts, parent.amounts)]
    for key in ("rate", "live", "nbf", "exp"):
        if getattr(child, key) is None:
            setattr(child, key, getattr(parent, key))
    return child
