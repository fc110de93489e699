"""Bodies: the fields of every kind, as the tables of docs/FORMAT.md have them.

A field is `name:type`, with `*` behind the name where `decide` fills it and the command does not say it. Types: u8 to
u64, i64, bool, us, id, bytesN, bytes, str, cap (canonical text), blob (index), amounts, the name of a structure, `T?`
an option, `[T]` a list; `<N` bounds the length of a list, text or bytes.
"""

from functools import lru_cache

from toka_caps import CapError, canonical
from toka_wire import Finding, pack, unpack

STRUCTURES = {
    "Cmd": "id:bytes16 asof:u64 undr:id? via:Via? sig:bytes<16544?",
    "Via": "kid:id jti:bytes32",
    "Grant": "par:id? iss:id sub:id cap:cap ans:[str]<8",
    "GrantAsked": "par:id? cap:str<8192",
    "GrantTo": "par:id? cap:str<8192 to:id",
    "Root": "from:id? cap:cap",
    "RootAsked": "from:id? cap:str<8192",
    "OpenBody": "opnr:id root:[RootAsked]<64",
    "GrantAmounts": "grnt:id amts:amounts",
    "EndHead": "seq:u64 hash:bytes32",
    "SessionLimits": "max:u16",
    "OpenAsked": "id:bytes16 undr:id? body:bytes<16384 sig:bytes<16544?",
    "FirstPrincipal": "id:id? kind:u8 cust:u8 keys:[id]<16 mods:u8",
    "Prices": "dig:bytes32 cont:bytes? text:blob?",
    "ExtensionPin": "name:str ver:u16 ops:[u16] dig:bytes32",
    "LimitReached": "dim:u16 lim:u64 spnt:u64 rsvd:u64 ask:u64",
    "Plan": "ws:str<1024 phas:u8 req:[id]<64 then:u8 rtry:Retry? ess:bool obj:[str]<64 del:[Deliverable]<64 "
            "mile:[Milestone]<64 repl:id?",
    "Retry": "max:u8 base:u64 cap:u64",
    "Deliverable": "name:str<1024 req:bool",
    "Milestone": "name:str<1024 mem:[str]<64",
    "Binding": "tool:Tool cite:Ref? repl:bytes32?",
    "Outcome": "kind:u8 det:u16 num:i64? sym:str<64?",
    "SandboxRecord": "cut:u8 req:u8 lvl:u8 lay:u64 abi:u16 dig:bytes32 jail:bytes32? tc:bytes32? sta:us end:us cpu:u64 "
                     "rss:u64 pids:u32 prox:u32",
    "WasmRecord": "mod:bytes32 eng:bytes32 seed:bytes32 clk:us step:u32 fuel:u64 gask:u32 gden:u32",
    "Usage": "tin:u64 tcch:u64 tout:u64 stat:u16 est:bool",
    "AttemptUsage": "tin:u64 tcch:u64 tout:u64",
    "Tool": "name:str<1024 dig:bytes32 facts:[FactDecl]<32 needs:[Need]<32 eff:u8 rsv:[Reserve] mod:u8 text:blob",
    "FactDecl": "ptr:str typ:u8",
    "Need": "text:str when:str?",
    "Reserve": "dim:u16 base:u64 per:u64 ptr:str?",
    "Fact": "ptr:str<256 int:i64? text:str<256?",
    "Ref": "ses:id seq:u64 hash:bytes32",
}

EVENTS = {
    0x0001: ("SessionOpened",
             "cls:u8 sui:u8 rul:u16 org:str non:bytes32 seed:bytes32 bld:str<64 reg:bytes32 root:id keys:[bytes]<32 "
             "intv:u32 lim:SessionLimits intr:bool open:OpenAsked opnr:id prin:[FirstPrincipal]<64 grnt:[Grant]<64 "
             "ceil:bytes? pric:Prices? ext:[ExtensionPin]<16 sys:Ref? chk:bytes? par:Ref?"),
    0x0002: ("StateCommitted", "cmd:Cmd? dig*:bytes32 leaf*:u64 upto*:u64"),
    0x0003: ("SessionClosed", "cmd:Cmd? why:u8 rsn:blob?"),
    0x0008: ("SessionRegistered", "cmd:Cmd? ses:id opnr:id root:[Root]<64 rsvd*:[GrantAmounts]<64"),
    0x0009: ("SessionEnded", "cmd:Cmd? ses:id how:u8 head:EndHead? spnt:[GrantAmounts]<64"),
    0x0101: ("Refused", "cmd:Cmd? kind:u16 sch:u16 body:bytes code:u16 fail:id? item:u16? dim:u16? need:str? "
                        "lim:LimitReached? rtry:us? appr:bytes32? rule:str<64? fsq:u64? det:blob?"),
    0x0201: ("AgentSpawned", "cmd:Cmd? par*:id spec:str<1024 text:blob sdig:bytes32 drv:u16 seed:bytes32 grnt:id "
                             "ngr:[id]<32 ask:[u64?]<7 narr:[cap?]<33 rsv*:amounts grs:[Grant]<64 drop:[str]<64 "
                             "plan:Plan"),
    0x0202: ("AgentStarted", "cmd:Cmd? agt:id"),
    0x0203: ("AgentPaused", "cmd:Cmd? agt:id why:u8 rsn:blob?"),
    0x0204: ("AgentResumed", "cmd:Cmd? agt:id"),
    0x0205: ("AgentStopping", "cmd:Cmd? agt:id why:u8 rsn:blob?"),
    0x0206: ("AgentEnded", "cmd:Cmd? agt:id how:u8 code:u16"),
    0x0301: ("TaskScheduled", "cmd:Cmd? agt:id name:str<1024 text:blob? req:[id]<64 prio:u8 tmo:u64 rtry:Retry"),
    0x0302: ("TaskStarted", "cmd:Cmd? task:id att:u16"),
    0x0303: ("TaskCompleted", "cmd:Cmd? task:id att:u16 res:blob?"),
    0x0304: ("TaskFailed", "cmd:Cmd? task:id att:u16 code:u16 rtbl:bool nbf*:us?"),
    0x0307: ("TaskSkipped", "cmd:Cmd? task:id why:u8 bec:bytes32?"),
    0x0401: ("MessageSent", "cmd:Cmd? to:id cont:blob rpl:id?"),
    0x0402: ("MessageTaken", "cmd:Cmd? msg:id"),
    0x0501: ("GrantIssued", "cmd:Cmd? grnt:Grant"),
    0x0502: ("GrantRevoked", "cmd:Cmd? grnt:id std*:u8 alr*:bool rsn:blob?"),
    0x0601: ("ToolRegistered", "cmd:Cmd? tool:Tool file:bytes32 stat:u8"),
    0x0602: ("ToolApproved", "cmd:Cmd? name:str<1024 dig:bytes32"),
    0x0606: ("ToolQuarantined", "cmd:Cmd? name:str<1024 dig:bytes32 why:u8 seen:bytes32?"),
    0x0610: ("ToolBound", "cmd:Cmd? tool:[Binding]<12"),
    0x0611: ("ToolUnbound", "cmd:Cmd? name:str<1024 dig:bytes32 why:u8 cite:Ref"),
    0x0701: ("CallAdmitted", "cmd:Cmd? mod*:u8 tool:str<1024 dig:bytes32 grnt:id ngr:[id]<32 fact:[Fact]<32 extr:bool "
                             "args:blob ask:[u64?]<7 narr:[cap?]<33 rsv*:amounts dead*:us rule*:str? task:bytes32? "
                             "par:id?"),
    0x0703: ("CallFinished", "cmd:Cmd? call:id att:u16 out:Outcome act:amounts chg*:amounts? over*:amounts? late*:bool "
                             "sout:blob? serr:blob? res:blob? rec:blob? sbx:SandboxRecord? wasm:WasmRecord? of:Ref? "
                             "use:Usage?"),
    0x0704: ("CallAttempted", "cmd:Cmd? call:id att:u16 caus:u8 stat:u16 nbf:us use:AttemptUsage? part:blob?"),
    0x0705: ("CancelRequested", "cmd:Cmd? call:id why:u8 rsn:blob?"),
    0x0706: ("OutcomeResolved", "cmd:Cmd? call:id verd:u8 evid:blob?"),
    0x0B01: ("PrincipalAdded", "cmd:Cmd? kind:u8 cust:u8 keys:[id]<16"),
    0x0E01: ("Observed", "cmd:Cmd? what:u16 sub:bytes32? call:id? cnt:u64 det:blob?"),
    0x0E02: ("SandboxProbed", "cmd:Cmd? lvls:u8 lay:u64 abi:u16 jail:bytes32 krnl:str<64"),
}
GENESIS, COMMIT, CLOSE, REFUSED = 0x0001, 0x0002, 0x0003, 0x0101
OPEN_SESSION, END_SESSION, SPAWN, GRANT, CALL, REPORT = 0x0008, 0x0009, 0x0201, 0x0501, 0x0701, 0x0703
NODE_ONLY = (0x0002, 0x0009, 0x0606, 0x0610, 0x0611, 0x0E02)
LIMITS = {"u8": 2**8, "u16": 2**16, "u32": 2**32, "u64": 2**64, "us": 2**64}
TO_COMMAND = {"[cap?]<33": "[str<8192?]<33", "[Root]<64": "[RootAsked]<64", "[Grant]<64": "[GrantAsked]<64",
              "Grant": "GrantTo"}


def bad(where, what):
    return Finding("BODY_UNDECODABLE", "body", f"{where}: {what}")


@lru_cache(maxsize=None)
def fields(spec):
    """The fields of a table: [(name, type, filled by decide)]."""
    pairs = [part.split(":", 1) for part in spec.split()]
    return tuple((name.rstrip("*"), kind, name.endswith("*")) for name, kind in pairs)


@lru_cache(maxsize=None)
def command_spec(kind):
    """The fields of the command that an event of this kind answers."""
    said = [f"{name}:{TO_COMMAND.get(typ, typ)}" for name, typ, filled in fields(EVENTS[kind][1])
            if name != "cmd" and not filled]
    return " ".join(said + (["unft:u16?", "det:blob?"] if kind == CALL else []))


@lru_cache(maxsize=None)
def split_type(kind):
    """A type as (option, list, base, bound)."""
    option = kind.endswith("?")
    kind = kind[:-1] if option else kind
    bound = None
    if "<" in kind and not kind.endswith("]"):
        kind, _, number = kind.rpartition("<")
        bound = int(number)
    return option, kind.startswith("["), kind[1:-1] if kind.startswith("[") else kind, bound


class Shape:
    """Compares a value with a table and collects the blobs it refers to, in the order of the fields."""

    def __init__(self):
        self.blobs = []

    def table(self, spec, value, where):
        wanted = fields(spec)
        if not isinstance(value, dict) or value.keys() != {name for name, _, _ in wanted}:
            raise bad(where, "not these fields")
        if [name for name, _, _ in wanted] != list(value):
            raise Finding("BODY_NON_CANONICAL", "body", f"{where}: fields in another order")
        for name, kind, _ in wanted:
            self.value(kind, value[name], f"{where}.{name}")

    def value(self, kind, value, where):
        option, is_list, base, bound = split_type(kind)
        if value is None and option:
            return
        if bound is not None:
            size = len(value.encode()) if isinstance(value, str) else len(value) if hasattr(value, "__len__") else 0
            if size > bound:
                raise bad(where, f"longer than {bound}")
        if is_list:
            if not isinstance(value, list):
                raise bad(where, "no list")
            for index, item in enumerate(value):
                self.value(base, item, f"{where}[{index}]")
        elif base in STRUCTURES:
            self.table(STRUCTURES[base], value, where)
        elif not self.scalar(base, value):
            raise bad(where, f"no {base}")

    def scalar(self, base, value):
        if base == "bool":
            return isinstance(value, bool)
        if base == "str":
            return isinstance(value, str)
        if base == "cap":
            try:
                return isinstance(value, str) and bool(canonical(value))
            except CapError:
                return False
        if base == "amounts":  # the rules judge what stands in it
            return isinstance(value, list) and len(value) <= 7 and all(
                isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**64 for one in value)
        if base in ("id", "bytes32", "bytes16", "bytes"):
            size = {"bytes": None, "bytes16": 16}.get(base, 32)
            return isinstance(value, bytes) and size in (None, len(value))
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        if base == "blob":
            self.blobs.append(value)
            return 0 <= value < 64
        return -2**63 <= value < 2**63 if base == "i64" else 0 <= value < LIMITS[base]


def is_amounts(value):
    return (isinstance(value, list) and len(value) <= 7 and (not value or value[-1] != 0)
            and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**64 for v in value)
            and all(v % 256 == 0 for v in value[1:3]))


def check_blob_order(references, blobs, more):
    """First references ascend 0, 1, 2, …, and reach every blob, unless `more` may stand behind them."""
    following = 0
    for index in references:
        if index > following:
            raise Finding("BODY_NON_CANONICAL", "body", "a blob is referred to out of order")
        following += index == following
    if following > blobs or (following < blobs and not more):
        raise Finding("BODY_NON_CANONICAL", "body", "not exactly the blobs of the header")
    return following


def check_known(kind, schema):
    """A later version may know more: what this one does not know it cannot check."""
    if kind not in EVENTS:
        raise Finding("KIND_UNKNOWN", "kind", f"0x{kind:04x}")
    if schema != 1:
        raise Finding("SCHEMA_UNKNOWN", "body_schema", schema)


def decode_body(kind, schema, data, blobs):
    """The fields of a body, and how many blobs it refers to. A refusal gets its command as `asked`."""
    check_known(kind, schema)
    body, shape = unpack(data), Shape()
    if kind == REFUSED:
        plain = {**body, "det": None} if isinstance(body, dict) and "det" in body else body
        shape.table(EVENTS[kind][1], plain, "body")  # `det` comes behind the blobs of the command
        body["asked"] = decode_command(body["kind"], body["sch"], body["body"], shape)
        shape.value("blob?", body["det"], "body.det")
    else:
        shape.table(EVENTS[kind][1], body, "body")
    is_call = kind == CALL or (kind == REFUSED and body["kind"] == CALL)
    used = check_blob_order(shape.blobs, blobs, is_call)
    return body, used


def decode_command(kind, schema, data, shape):
    """The fields of an encoded command."""
    check_known(kind, schema)
    if kind in (GENESIS, REFUSED):
        raise bad("command", "no such command")
    command = unpack(data)
    shape.table(command_spec(kind), command, "command")
    check_bounds(kind, command, len(data))
    return command


def check_bounds(kind, command, size):
    """The bounds that make it a command at all."""
    if kind == SPAWN:
        grants = len(pack(command["grs"]))
        if size - grants > 16_384 or grants > 49_152:
            raise bad("command", "too long")
    elif kind == 0x0610:
        if not all(len(pack(binding["tool"])) <= 4_096 for binding in command["tool"]):
            raise bad("command", "a tool is too long")
    elif size > 16_384 or (kind == 0x0601 and len(pack(command["tool"])) > 4_096):
        raise bad("command", "too long")


def implied_command(kind, event):
    """The command that an event implies, with the capabilities as they were filled."""
    command = {name: event[name] for name, _, filled in fields(EVENTS[kind][1]) if name != "cmd" and not filled}
    if kind == SPAWN:
        command["grs"] = [{"par": grant["par"], "cap": grant["cap"]} for grant in event["grs"]]
    elif kind == GRANT:
        grant = event["grnt"]
        command["grnt"] = {"par": grant["par"], "cap": grant["cap"], "to": grant["sub"]}
    elif kind == CALL:
        command.update(unft=None, det=None)
    return command


def without_texts(kind, command):
    """A command without the texts of its capabilities, which is what a signature must agree in."""
    plain = dict(command)
    if kind == SPAWN:
        plain["grs"] = [grant["par"] for grant in command["grs"]]
    elif kind == GRANT:
        plain["grnt"] = {**command["grnt"], "cap": ""}
    elif kind == OPEN_SESSION:
        plain["root"] = [root["from"] for root in command["root"]]
    if "narr" in plain:
        plain["narr"] = [text is None for text in command["narr"]]
    return plain
