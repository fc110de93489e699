"""Bytes: hashes, strict msgpack, entries, key grants, signatures and the sections of a bundle.

Everything here is bounded before memory is allocated. A violation raises `Finding` with a code of docs/FORMAT.md.
"""

import base64
import hashlib
import struct

from blake3 import blake3
from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

MAX_BODY = 65_536
MAX_BLOBS = 64
MAX_CAUSES = 16
MAX_TIME = 2**53 - 1
MAX_SESSIONS = 4_096
MAX_MANIFEST = 1 << 20
GRAIN = 256
ZERO32 = bytes(32)
FIELD_PRIME = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


class Finding(Exception):
    """One violation: its code, the field it is in, and what is wrong with it."""

    def __init__(self, code, field=None, detail=None):
        super().__init__(code)
        self.code, self.field, self.detail = code, field, detail
        self.class_ = "NOT_CHECKED" if code in ("KIND_UNKNOWN", "SCHEMA_UNKNOWN", "RULES_UNKNOWN") else "FAIL"


class Unreadable(Exception):
    """The file is no bundle, or a damaged one: exit code 8."""


def hasher(context):
    """BLAKE3 in derive-key mode for one of the contexts of the page."""
    return blake3(derive_key_context=f"toka 2026-11 {context} v1")


def derive(context, *parts):
    """DK(context, parts joined), 32 bytes."""
    digest = hasher(context)
    for part in parts:
        digest.update(part)
    return digest.digest()


def u16(value):
    return struct.pack(">H", value)


def u32(value):
    return struct.pack(">I", value)


def u64(value):
    return struct.pack(">Q", value)


def grains(length):
    """The size of a blob of `length` bytes in grains of 256 bytes."""
    return max(1, -(-length // GRAIN))


# --- msgpack -------------------------------------------------------------------------------------------------------

MAX_DEPTH = 16
MAX_ITEMS = 4_096


def pack(value):
    """The one way to write a value: shortest integers and lengths, maps in the order given."""
    out = bytearray()
    _pack(out, value)
    return bytes(out)


def _pack(out, value):
    if value is None:
        out.append(0xC0)
    elif value is True or value is False:
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _pack_int(out, value)
    elif isinstance(value, str):
        data = value.encode()
        if len(data) < 32:
            out.append(0xA0 | len(data))
        else:
            _pack_length(out, len(data), 0xD9, 0xDA, 0xDB)
        out += data
    elif isinstance(value, (bytes, bytearray)):
        _pack_length(out, len(value), 0xC4, 0xC5, 0xC6)
        out += value
    elif isinstance(value, (list, tuple)):
        _pack_count(out, len(value), 0x90, 0xDC)
        for item in value:
            _pack(out, item)
    else:
        _pack_count(out, len(value), 0x80, 0xDE)
        for key, item in value.items():
            _pack(out, key)
            _pack(out, item)


def _pack_length(out, length, one, two, four):
    if length < 1 << 8:
        out += bytes((one, length))
    elif length < 1 << 16:
        out += bytes((two,)) + u16(length)
    else:
        out += bytes((four,)) + u32(length)


def _pack_count(out, count, fix, two):
    if count < 16:
        out.append(fix | count)
    elif count < 1 << 16:
        out += bytes((two,)) + u16(count)
    else:
        out += bytes((two + 1,)) + u32(count)


def _pack_int(out, value):
    if value >= 0:
        if value < 0x80:
            out.append(value)
        elif value < 1 << 8:
            out += struct.pack(">BB", 0xCC, value)
        elif value < 1 << 16:
            out += struct.pack(">BH", 0xCD, value)
        elif value < 1 << 32:
            out += struct.pack(">BI", 0xCE, value)
        else:
            out += struct.pack(">BQ", 0xCF, value)
    elif value >= -32:
        out += struct.pack(">b", value)
    elif value >= -(1 << 7):
        out += struct.pack(">Bb", 0xD0, value)
    elif value >= -(1 << 15):
        out += struct.pack(">Bh", 0xD1, value)
    elif value >= -(1 << 31):
        out += struct.pack(">Bi", 0xD2, value)
    else:
        out += struct.pack(">Bq", 0xD3, value)


_SCALARS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_TEXTS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_BINS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class _Reader:
    """Reads the shapes that bodies may have; that they are written as a writer writes them is compared afterwards."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        end = self.at + length
        if end > len(self.data):
            raise Finding("BODY_UNDECODABLE", "body", f"ends within a value at byte {self.at}")
        part = self.data[self.at:end]
        self.at = end
        return part

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, length):
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise Finding("BODY_UNDECODABLE", "body", f"no UTF-8 before byte {self.at}") from None

    def value(self, depth=0):
        tag = self.take(1)[0]
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 256
        if tag < 0x90:
            return self.pairs(tag & 15, depth)
        if tag < 0xA0:
            return self.items(tag & 15, depth)
        if tag < 0xC0:
            return self.text(tag & 31)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _SCALARS:
            return self.number(_SCALARS[tag])
        if tag in _TEXTS:
            return self.text(self.number(_TEXTS[tag]))
        if tag in _BINS:
            return self.take(self.number(_BINS[tag]))
        if tag in (0xDC, 0xDD):
            return self.items(self.number(">H" if tag == 0xDC else ">I"), depth)
        if tag in (0xDE, 0xDF):
            return self.pairs(self.number(">H" if tag == 0xDE else ">I"), depth)
        raise Finding("BODY_UNDECODABLE", "body", f"type 0x{tag:02x} at byte {self.at - 1}")

    def enter(self, count, depth):
        if count > MAX_ITEMS or depth >= MAX_DEPTH:
            raise Finding("BODY_UNDECODABLE", "body", f"too large or too deep at byte {self.at}")

    def items(self, count, depth):
        self.enter(count, depth)
        return [self.value(depth + 1) for _ in range(count)]

    def pairs(self, count, depth):
        self.enter(count, depth)
        result = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in result:
                raise Finding("BODY_UNDECODABLE", "body", f"no key, or one twice, at byte {self.at}")
            result[key] = self.value(depth + 1)
        return result


def unpack(data):
    """The value of canonical bytes; other bytes are findings."""
    reader = _Reader(data)
    value = reader.value()
    if reader.at != len(data):
        raise Finding("BODY_UNDECODABLE", "body", f"bytes after the value at byte {reader.at}")
    if pack(value) != data:
        raise Finding("BODY_NON_CANONICAL", "body", "not the shortest form")
    return value


def unpack_prefix(data):
    """The canonical value at the front of bytes, behind which digests of 32 bytes stand."""
    reader = _Reader(data)
    value = reader.value()
    if (len(data) - reader.at) % 32 or pack(value) != data[:reader.at]:
        raise Finding("BODY_NON_CANONICAL", "sig")
    return value


# --- keys and signatures -------------------------------------------------------------------------------------------

def key_id(public):
    return derive("key", b"\x01", public)


def admit_key(public):
    """Check that a public key is a canonical point of the prime-order group."""
    y = int.from_bytes(public, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= FIELD_PRIME or (sign and y in (1, FIELD_PRIME - 1)):
        raise Finding("KEY_NON_CANONICAL", "key", public.hex())
    if not crypto_core_ed25519_is_valid_point(public):
        raise Finding("KEY_WEAK", "key", public.hex())


def check_signature(public, label, digest, signature):
    """Strict Ed25519 over 0x00 ‖ label ‖ digest."""
    if signature == bytes(64):
        raise Finding("SIG_MISSING", "signature")
    if int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        raise Finding("SIG_NON_CANONICAL", "signature")
    if not crypto_core_ed25519_is_valid_point(signature[:32]):  # an R that verifies is canonical and has no torsion
        raise Finding("SIG_INVALID", "signature", "R is no canonical point of large order")
    try:
        VerifyKey(public).verify(b"\x00" + label.encode() + digest, signature)
    except (BadSignatureError, ValueError):
        raise Finding("SIG_INVALID", "signature") from None


class KeyGrant:
    """A key grant record of the genesis."""

    def __init__(self, data):
        if len(data) < 161 or data[:4] != b"TKG1" or data[12:16] != bytes(4):
            raise Finding("KEY_GRANT_INVALID", "keys", "malformed")
        self.algorithm, self.role, length, self.epoch = struct.unpack(">BBHI", data[4:12])
        if not 1 <= length <= 255 or len(data) != 160 + length:
            raise Finding("KEY_GRANT_INVALID", "keys", "malformed")
        self.not_before, self.not_after = struct.unpack(">QQ", data[16:32])
        self.public, self.root = data[32:64], data[64:96]
        self.signed, self.signature = data[:96 + length], data[96 + length:]
        try:
            self.origin = data[96:96 + length].decode()
        except UnicodeDecodeError:
            raise Finding("KEY_GRANT_INVALID", "keys", "origin is no UTF-8") from None
        if self.algorithm != 1:
            raise Finding("KEY_ALGORITHM_UNKNOWN", "keys", self.algorithm)
        if not 1 <= self.role <= 7:
            raise Finding("KEY_GRANT_INVALID", "keys", f"role {self.role}")
        admit_key(self.public)
        self.id = key_id(self.public)


def parse_root_key(text):
    """The public key of a root verifier key line `NAME+HASH+KEY`; raises ValueError where it is none."""
    name, hash_hex, key64 = text.strip().split("+", 2)
    key = base64.b64decode(key64, validate=True)
    if len(key) != 33 or key[0] != 1 or not name.endswith("/root"):
        raise ValueError("not the verifier key of a root key")
    if hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] != hash_hex:
        raise ValueError("the hash of the verifier key does not fit")
    try:
        admit_key(key[1:])
    except Finding as finding:
        raise ValueError(finding.code) from None
    return key[1:], name[:-len("/root")]


# --- entries -------------------------------------------------------------------------------------------------------

_HEADER = struct.Struct(">4sBBHHHHH32sQ32sQI32s32sI32s")


class Entry:
    """A parsed entry. Parsing checks nothing but the frame."""

    def __init__(self, offset, header, signature, body):
        (self.magic, self.suite, self.flags, self.kind, self.schema, causes, blobs, self.reserved, self.session,
         self.seq, self.prev, self.time, self.epoch, self.signer, self.principal, _, self.body_hash) \
            = _HEADER.unpack(header[:200])
        at = 200 + 8 * causes
        self.offset, self.header, self.signature, self.body = offset, header, signature, body
        self.causes = list(struct.unpack(f">{causes}Q", header[200:at]))
        self.blobs = [(struct.unpack(">I", header[i:i + 4])[0], header[i + 4:i + 36])
                      for i in range(at, at + 36 * blobs, 36)]
        self.hash = derive("entry", header, signature)


def read_entry(take, offset, index):
    """Read one entry with `take(n)`, the counts before anything is allocated; KeyError has the index."""
    fixed = take(200)
    causes, blobs = struct.unpack(">HH", fixed[10:14])
    body_len = struct.unpack(">I", fixed[164:168])[0]
    if causes > MAX_CAUSES or blobs > MAX_BLOBS or body_len > MAX_BODY:
        raise Finding("LIMIT_EXCEEDED", "n_causes" if causes > MAX_CAUSES else
                      "n_blobs" if blobs > MAX_BLOBS else "body_len", f"entry {index} of its section")
    rest = take(8 * causes + 36 * blobs)
    return Entry(offset, fixed + rest, take(64), take(body_len))


# --- bundles -------------------------------------------------------------------------------------------------------

MAGIC = b"TOKABNDL1\n"
MANIFEST, KEYS, ENTRIES, BLOBS, PROOFS, CHECKPOINTS, REGISTRY, TRAILER = 1, 2, 3, 4, 5, 6, 7, 255


class Bundle:
    """The sections of a bundle file, found without reading their content.

    What is wrong with the container is in `faults`: (offset, what). What can still be read of such a file is read.
    """

    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = self.file.seek(0, 2)
        self.file.seek(0)
        if self.file.read(len(MAGIC)) != MAGIC:
            raise Unreadable("no bundle: the first bytes differ")
        self.sections, self.faults, self.cut = [], [], False  # sections: (type, offset of the content, length)
        at, last = len(MAGIC), 0
        while at < self.size:
            self.file.seek(at)
            head = self.file.read(9)
            if len(head) < 9 or len(self.sections) > 2 * MAX_SESSIONS + 2:
                self.cut = True
                self.faults.append((at, "a section is cut off, or there are too many"))
                break
            kind, length, left = head[0], int.from_bytes(head[1:], "big"), self.size - at - 9
            if kind not in (MANIFEST, ENTRIES, BLOBS, TRAILER):
                self.faults.append((at, f"a section of type {kind}, which nobody writes or reads"))
            elif kind < last or (kind == last and kind not in (ENTRIES, BLOBS)):
                self.faults.append((at, f"a section of type {kind} behind one of type {last}"))
            if length > left:
                self.cut = True
                self.faults.append((at + 1, f"a section of {length} bytes, {left} are left"))
            self.sections.append((kind, at + 9, min(length, left)))
            at, last = at + 9 + length, kind
        if not self.sections or self.sections[0][0] != MANIFEST:
            self.faults.append((len(MAGIC), "no manifest comes first"))
        if self.sections and self.sections[-1][0] == TRAILER:
            self.check_trailer()
        elif not self.cut:
            self.faults.append((self.size, "the file ends without a trailer"))

    def of(self, kind):
        return [(at, length) for k, at, length in self.sections if k == kind]

    def check_trailer(self):
        """Compare the digest at the end with the bytes before it."""
        _, at, length = self.sections[-1]
        digest, window = hasher("bundle"), self.window(0, at - 9)
        while window.left():
            digest.update(window.take(min(window.left(), 1 << 16)))
        if length != 32 or self.window(at, 32).take(32) != digest.digest():
            self.faults.append((at, "the digest in the trailer is not that of the bytes before it"))

    def is_cut(self, at, length):
        """Whether a section is the one that the end of the file cuts."""
        return self.cut and at + length == self.size

    def window(self, at, length):
        return Window(self.file, at, length)


class Window:
    """A part of the file, read in order; a read beyond its end is `Unreadable`."""

    def __init__(self, file, at, length):
        self.file, self.at, self.end = file, at, at + length
        file.seek(at)

    def take(self, length):
        if length > self.end - self.at:
            raise Unreadable(f"cut off at byte {self.at}")
        part = self.file.read(length)
        if len(part) != length:
            raise Unreadable("the file became shorter while it was read")
        self.at += length
        return part

    def left(self):
        return self.end - self.at
