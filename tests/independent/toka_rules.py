"""Legality: the rules by which each command is decided, and what each event changes ("Order of checks" of the page).

`Rules.check` decides the command that an entry implies again, in the state before, and compares the outcome with the
entry. `Rules.apply` then changes the state. Where a rule refuses, `Refuse` holds the code and what a refusal says.
"""

import struct
from collections import namedtuple

import toka_caps as caps
from toka_caps import AMOUNTS, DIM, CapError, MissingFact, is_name
from toka_schema import (CALL, CLOSE, COMMIT, END_SESSION, EVENTS, GRANT as GRANT_KIND, NODE_ONLY, OPEN_SESSION,
                         REFUSED, REPORT, SPAWN, STRUCTURES, Shape, check_bounds, command_spec, implied_command,
                         is_amounts, without_texts)
from toka_state import (AGENT, CALL as CALLS, EMPTY, GRANT, KEY, LISTED, MAILBOX, MAX_U64, METER, NONCE, PRINCIPAL,
                        REFUSALS, SESSION, TASK, TOOL, State, amount, trimmed)
from toka_wire import MAX_TIME, ZERO32, Finding, check_signature, derive, pack, u16, u32, u64, unpack

NODE = ZERO32
HUMAN, AGENT_KIND, EXECUTOR, SERVICE = 1, 2, 3, 4
ROLE_EVENT, ROLE_OPERATOR, ROLE_EXECUTOR, ROLE_AGENT, ROLE_REDACT, ROLE_TOKEN = 1, 3, 4, 5, 6, 7
DAY = 86_400_000_000
NO_AGENT, LATER = "no such agent", "the deadline"
ANOTHER = "another command"
ROLE_NAMES = {1: "event", 2: "log", 3: "operator", 4: "executor", 5: "agent", 6: "redact", 7: "token"}
AGENT_STATES = {1: "spawned", 2: "running", 3: "paused", 4: "stopping", 5: "ended"}
TASK_STATES = {1: "scheduled", 2: "started", 3: "completed", 4: "failed", 6: "cancelled", 7: "skipped"}
TOOL_STATES = {1: "proposed", 2: "approved", 4: "quarantined"}
SAMPLES = {1: 1, 2: True, 3: "a", 4: "a:", 5: "a"}  # a value per type of fact, to parse templates with
COMMAND_FINDINGS = {109: "COMMAND_SIG_INVALID", 120: "COMMAND_UNSIGNED", 121: "COMMAND_SIG_INVALID",
                    122: "COMMAND_AUDIENCE", 123: "COMMAND_EXPIRED", 124: "COMMAND_REPLAYED", 125: "KEY_WRONG_ROLE"}
(START, PAUSE, RESUME, STOP, END_AGENT, SCHEDULE, START_TASK, COMPLETE, FAIL, SKIP, SEND, TAKE, REVOKE, REGISTER,
 APPROVE, QUARANTINE, BIND, UNBIND, ATTEMPT, CANCEL, RESOLVE, ADD_PRINCIPAL, OBSERVE, PROBE) = (
    0x0202, 0x0203, 0x0204, 0x0205, 0x0206, 0x0301, 0x0302, 0x0303, 0x0304, 0x0307, 0x0401, 0x0402, 0x0502, 0x0601,
    0x0602, 0x0606, 0x0610, 0x0611, 0x0704, 0x0705, 0x0706, 0x0B01, 0x0E01, 0x0E02)
SYSTEM_ONLY = (OPEN_SESSION, END_SESSION, REGISTER, APPROVE, QUARANTINE, ADD_PRINCIPAL, PROBE)
WORK_ONLY = (BIND, UNBIND)
RIGHTS = {CLOSE: "cancel", STOP: "cancel", CANCEL: "cancel", START: "pause", PAUSE: "pause", RESUME: "pause",
          SCHEDULE: "pause", REVOKE: "revoke-any"}

Context = namedtuple("Context", "seq time asker blobs cmd")


class Refuse(Exception):
    """A command that the rules refuse. `outside`: it is answered outside the log and never stands in a chain."""

    def __init__(self, code, outside=False, **said):
        super().__init__(code)
        self.of_signature = said.pop("of_signature", False)
        self.code, self.outside, self.said = code, outside, said


def need(condition, code, **said):
    if not condition:
        raise Refuse(code, **said)


def limit(dim, highest, spent, reserved, asked):
    return {"dim": DIM[dim], "lim": highest, "spnt": spent, "rsvd": reserved, "ask": asked}


def parse_cap(text, **said):
    try:
        cap = caps.parse(text)
    except CapError as error:
        raise Refuse(error.code, rule="capability", **said) from None
    need(len(cap.text().encode()) <= 4_096, 101, rule="capability: longer than 4,096 bytes", **said)
    return cap


class Rules:
    def __init__(self, session):
        self.session, self.state, self.class_ = session, State(), None
        self.system_ref = None
        self.signed_commands = 0

    # --- the genesis ------------------------------------------------------------------------------------------------

    def open(self, entry, body, grants):
        """Check what the genesis says beside its keys, and build the first state."""
        def must(condition, field):
            if not condition:
                raise Finding("GENESIS_INVALID", field)
        must(body["cls"] in (1, 2), "cls")
        must(body["sys"] is None or body["cls"] == 2, "sys")
        for field in ("ceil", "pric", "chk", "par"):
            must(body[field] is None, field)
        must(not body["ext"], "ext")
        must(body["sui"] == 1, "sui")
        must(64 <= body["intv"] <= 65_536, "intv")
        must(1 <= body["lim"]["max"] <= 256, "lim")
        must(any(key.role == ROLE_EVENT for key in grants.values()), "keys")
        must(len(pack(body["prin"])) <= 16_384 and len(pack(body["grnt"])) <= 16_384, "prin")
        ids, taken, self.ordinal = [], set(), 0
        for one in body["prin"]:
            executes = one["kind"] == EXECUTOR
            must(one["kind"] in (HUMAN, EXECUTOR, SERVICE) and one["cust"] in (1, 2) and one["mods"] < 8
                 and (one["mods"] != 0) == executes, "prin")
            must(one["id"] != NODE and (one["id"] is None or one["id"] not in ids), "prin")
            ids.append(one["id"] or self.new_id(0))
            for key in one["keys"]:
                must(key in grants and key not in taken, "keys")
                taken.add(key)
        holders = {one["id"] for one in body["prin"] if one["id"] is not None and one["kind"] != EXECUTOR}
        must(body["opnr"] in holders, "opnr")
        owners = {key: who for who, one in zip(ids, body["prin"]) for key in one["keys"]}
        for grant in body["grnt"]:
            exp = caps.canonical(grant["cap"]).exp
            must(grant["par"] is None and grant["sub"] in holders and grant["iss"] == body["opnr"] and not grant["ans"]
                 and exp is not None and exp > entry.time, "grnt")
        self.class_, self.interval = body["cls"], body["intv"]
        self.system_ref = body["sys"]
        self.check_opening(entry, body, grants, owners, must)
        state = self.state
        state.put(SESSION, EMPTY, {
            "cls": body["cls"], "rul": body["rul"], "opnr": body["opnr"], "max": body["lim"]["max"], "phas": 1,
            "sys": body["sys"] and body["sys"]["ses"], "next": body["intv"], "clsd": False})
        for who, one in zip(ids, body["prin"]):
            state.put(PRINCIPAL, who, {"kind": one["kind"], "aliv": True, "cust": one["cust"], "keys": one["keys"],
                                       "mods": one["mods"], "abov": None})
        for key in grants.values():
            state.put(KEY, key.id, {"role": key.role, "ownr": owners.get(key.id), "epo": key.epoch,
                                    "nbf": key.not_before, "naf": key.not_after})
        for grant in body["grnt"]:
            state.add_grant(self.new_id(0), grant)

    def new_id(self, seq):
        self.ordinal += 1
        return derive("id", self.session, u64(seq), u32(self.ordinal - 1))

    def check_opening(self, entry, body, grants, owners, must):
        asked = body["open"]
        if body["sys"] is None:
            must(asked["body"] == b"\x80" and asked["undr"] is None and asked["sig"] is None, "open")
            return
        must(body["cls"] == 2, "sys")
        opening = unpack(asked["body"])
        Shape().table(STRUCTURES["OpenBody"], opening, "open.body")
        must(opening["opnr"] == body["opnr"] and len(opening["root"]) == len(body["grnt"]), "open")
        for root, grant in zip(opening["root"], body["grnt"]):
            try:
                same = caps.parse(root["cap"]).text() == grant["cap"]
            except CapError:
                same = False
            must(same and grant["sub"] == body["opnr"], "open")
        must(asked["undr"] is not None, "open")
        must(asked["sig"] is not None or all(root["from"] is not None for root in opening["root"]), "open")
        if asked["sig"] is not None:
            record = SignedCommand(asked["sig"])
            key = grants.get(record.key)
            must(record.kind == OPEN_SESSION and record.schema == 1 and record.session == body["sys"]["ses"]
                 and record.body == asked["body"], "open")
            must(key and key.role == ROLE_OPERATOR and owners.get(record.key) == body["opnr"], "open")
            record.verify(key.public)
            self.signed_commands += 1

    # --- one entry --------------------------------------------------------------------------------------------------

    def check(self, entry, body, used, keys):
        """Decide again, compare, apply; a difference is a finding."""
        self.keys, self.ordinal = keys, 0
        refused = entry.kind == REFUSED
        kind = body["kind"] if refused else entry.kind
        command = body["asked"] if refused else implied_command(kind, body)
        context = Context(entry.seq, entry.time, entry.principal, entry.blobs, body["cmd"])
        if (body["cmd"] is None) != (kind in NODE_ONLY):
            raise Finding("BODY_UNDECODABLE", "cmd", "nil is for what only the node asks")
        try:
            expected, causes = self.decide(kind, command, context, refused, used)
        except Refuse as refusal:
            if refusal.outside or not refused:
                self.illegal(entry, refusal)
            said = {**dict.fromkeys(("fail", "item", "dim", "need", "lim", "rtry", "appr", "rule", "fsq", "det")),
                    **refusal.said}
            actual = {name: body[name] for name in said}
            if refusal.code == 111 or kind == CALL and command["unft"] == refusal.code:
                said["det"] = command["det"] if kind == CALL and command["unft"] == refusal.code else None
            room = min(8_192, max(0, 65_536 - len(body["body"]) - len(body["cmd"]["sig"] or b"" if body["cmd"] else b"")
                                  - 1_024))
            if said["need"] is not None and len(said["need"].encode()) > room:
                said["need"] = None
            if said["rule"] is not None and len(said["rule"].encode()) > 64:
                said["rule"] = None
            if refusal.code != body["code"] or actual != said or entry.causes:
                raise Finding("TRANSITION_ILLEGAL", "body", f"the rules give Refused({refusal.code}, {_short(said)}), "
                              f"the entry says Refused({body['code']}, {_short(actual)})") from None
            self.apply_refusal(entry, kind, command, body)
            return
        if refused:
            raise Finding("TRANSITION_ILLEGAL", "body", f"the rules give {EVENTS[kind][0]}")
        for name, value in expected.items():
            if body[name] != value:
                raise Finding("TRANSITION_ILLEGAL", f"body.{name}", f"the rules give {_short(value)}, the entry says "
                              f"{_short(body[name])}")
        if entry.causes != causes:
            raise Finding("TRANSITION_ILLEGAL", "causes", f"the rules give {causes}")
        self.apply(kind, body, context)

    def illegal(self, entry, refusal):
        name = COMMAND_FINDINGS.get(refusal.code)
        if refusal.said.get("rule") == ANOTHER:
            name = "COMMAND_MISMATCH"
        if name and refusal.of_signature:
            raise Finding(name, "cmd.sig")
        raise Finding("TRANSITION_ILLEGAL", "body", f"the rules give Refused({refusal.code}), {_short(refusal.said)}")

    def decide(self, kind, command, context, refused, used):
        """The filled fields of the event that answers a command, and its causes; or `Refuse`."""
        state, asker, cmd = self.state, context.asker, context.cmd
        need(not (cmd and cmd["via"]), 101)
        session = state.get(SESSION, EMPTY)
        need(not session["clsd"], 201, outside=True)
        # A chain has nothing but a commitment where one is due, not even what step 3 would refuse.
        need(context.seq != session["next"] or kind == COMMIT, 206, outside=True)
        self.check_asker(kind, command, context)
        if cmd and cmd["sig"] is not None:
            command = self.check_signed(kind, command, context, refused)
        else:
            need(not self.must_be_signed(kind, command, asker), 120, of_signature=True,
                 need="admin:#" + (self.operations_of(kind, command, asker)[0] or ""))
        right = self.check_right(kind, command, context)
        self.pieces = used < len(context.blobs)  # blobs that no field names
        filled, causes = getattr(self, "rule_%04x" % kind)(command, context, right)
        if right is not None:
            self.check_gates([right])
        return filled, causes

    def check_asker(self, kind, command, context):
        state, asker = self.state, context.asker
        who = None if asker == NODE else state.get(PRINCIPAL, asker)
        need(asker == NODE or who is not None, 203, outside=True)
        need(asker == NODE or who["aliv"], 204)
        role = "node" if asker == NODE else who["kind"]
        if kind in NODE_ONLY:
            allowed = ("node",)
        elif kind in (REPORT, ATTEMPT, OBSERVE):
            allowed = (EXECUTOR, "node")
        elif kind == END_AGENT:
            allowed = (AGENT_KIND, "node")
        elif kind in (PAUSE, REGISTER):
            allowed = ("node", HUMAN, AGENT_KIND, SERVICE)
        elif kind in (START_TASK, COMPLETE, FAIL, TAKE):
            allowed = (AGENT_KIND,)
        elif kind == SKIP:
            allowed = (AGENT_KIND, SERVICE)
        elif kind in (OPEN_SESSION, APPROVE, ADD_PRINCIPAL, RESOLVE):
            allowed = (HUMAN, SERVICE)
        else:
            allowed = (HUMAN, AGENT_KIND, SERVICE)
        need(role in allowed, 205)
        need(kind not in SYSTEM_ONLY or self.class_ == 1, 206, rule="only in the system session")
        need(kind not in WORK_ONLY or self.class_ == 2, 206, rule="only in a work session")
        if role == AGENT_KIND and kind in (CALL, SPAWN, SEND, TAKE, START_TASK):
            self.must_run(asker)

    def must_run(self, asker):
        row = self.state.get(AGENT, asker)
        if row:
            need(row["stat"] not in (1, 5), 206)
            self.not_held(asker)

    def not_held(self, agent):
        why = self.state.held(agent)
        need(why is None, 207, rule=why)

    # --- signatures of commands -------------------------------------------------------------------------------------

    def must_be_signed(self, kind, command, asker):
        return ((kind == GRANT_KIND and command["grnt"]["par"] is None) or kind in (APPROVE, ADD_PRINCIPAL)
                or (kind == REGISTER and command["stat"] == 2 and asker != NODE)
                or (kind == OPEN_SESSION and any(root["from"] is None for root in command["root"])))

    def check_signed(self, kind, command, context, refused):
        """Judge the signature of a command; the command that was signed is the one to decide."""
        state, asker = self.state, context.asker
        try:
            record = SignedCommand(context.cmd["sig"])
        except Finding:
            raise Refuse(101, rule="signed") from None
        key = state.get(KEY, record.key)
        need(key and key["ownr"] == asker and asker != NODE, 109, of_signature=True, rule="not a key of who asks")
        kind_of = state.get(PRINCIPAL, asker)["kind"]
        role = ROLE_OPERATOR
        if not self.must_be_signed(kind, command, asker):
            role = {EXECUTOR: ROLE_EXECUTOR, AGENT_KIND: ROLE_AGENT}.get(kind_of, ROLE_OPERATOR)
        need(key["role"] == role, 125, of_signature=True, rule=ROLE_NAMES[key["role"]])
        need(key["nbf"] <= context.time < key["naf"], 109, of_signature=True, rule="outside its window")
        need(record.session == self.session, 122, of_signature=True)
        need(context.time < record.not_after <= context.time + DAY, 123, of_signature=True)
        used = state.get(NONCE, record.key + record.nonce)
        need(used is None, 124, of_signature=True, fsq=used and used["seq"])
        held = len(state.tables[NONCE])
        need(held < 65_536, 604, dim=DIM["nonces"], lim=limit("nonces", 65_536, held, 0, 1))
        try:
            record.verify(self.keys[record.key].public)
        except Finding:
            raise Refuse(121, of_signature=True) from None
        tail = b"".join(commitment for _, commitment in context.blobs)
        shape = Shape()
        try:
            if record.kind != kind or record.schema != 1 or not record.body.endswith(tail):
                raise Finding("COMMAND_MISMATCH")
            encoded = record.body[:len(record.body) - len(tail)]
            signed = unpack(encoded)
            shape.table(STRUCTURES["OpenBody"] if kind == OPEN_SESSION else command_spec(kind), signed, "sig")
            check_bounds(kind, signed, len(encoded))
        except Finding:
            raise Refuse(121, of_signature=True, rule=ANOTHER) from None
        if kind == OPEN_SESSION:
            signed = {"ses": command["ses"], **signed}
        same = signed == command if refused else without_texts(kind, signed) == without_texts(kind, command)
        need(same, 121, of_signature=True, rule=ANOTHER)
        self.signed_commands += 1
        return signed

    # --- grants that are named --------------------------------------------------------------------------------------

    def live(self, grant, now, **said):
        for node in self.state.chain(grant):
            row, cap = self.state.get(GRANT, node), self.state.cap(node)
            need(not row["rvk"], 304, fail=node, **said)
            need(now < (MAX_TIME if cap.exp is None else cap.exp), 305, fail=node, **said)
            need(cap.nbf is None or now >= cap.nbf, 306, fail=node, **said)
            need(self.state.alive(row["grnt"]["sub"]), 307, fail=node, **said)

    def usable(self, grant, context, **said):
        row = self.state.get(GRANT, grant)
        need(row is not None, 301, fail=grant, **said)
        need(row["grnt"]["sub"] == context.asker, 302, fail=grant, **said)
        need(self.state.cap(grant).use == "yes", 303, fail=grant, **said)
        self.live(grant, context.time, **said)

    def operations_of(self, kind, command, asker):
        """The administrative operations that a command may or must name a grant for."""
        if kind == GRANT_KIND:
            return ("grant-root", True) if command["grnt"]["par"] is None else (None, False)
        if kind == OPEN_SESSION:
            roots = any(root["from"] is None for root in command["root"])
            return "grant-root,open-session" if roots else "open-session", True
        if kind == REGISTER:
            return (None, False) if asker == NODE and command["stat"] == 2 else ("register-tool", True)
        required = {APPROVE: "register-tool", ADD_PRINCIPAL: "members", RESOLVE: "resolve"}
        return (required[kind], True) if kind in required else (RIGHTS.get(kind), False)

    def check_right(self, kind, command, context):
        """The administrative or agent grant that a command names."""
        named = context.cmd and context.cmd["undr"]
        wanted, required = self.operations_of(kind, command, context.asker)
        if named is None:
            need(not required, 312, need=wanted and "admin:#" + wanted)
            return None
        row, who = self.state.get(GRANT, named), self.state.get(PRINCIPAL, context.asker)
        service = who is not None and who["kind"] == SERVICE
        by_agents = kind in (START, SCHEDULE) and service and row is not None and self.state.cap(named).kind == "agent"
        if kind in (SEND, SKIP) or by_agents:
            need(kind == SEND or service, 312)
            return self.check_agent_right(kind, command, context, named)
        need(wanted is not None, 312)
        self.usable(named, context)
        asked = caps.parse("admin:#" + wanted)
        found = caps.scope_row(asked, self.state.cap(named))
        need(found is None, 312, fail=named, dim=found and DIM[found], need=asked.text())
        return named

    def check_agent_right(self, kind, command, context, named):
        if kind == SKIP:
            task = self.state.get(TASK, command["task"])
            need(task is not None, 209)
            agent = task["agt"]
        else:
            agent = command["to" if kind == SEND else "agt"]
        row = self.state.get(AGENT, agent)
        need(row is not None, 101, rule=NO_AGENT)
        self.usable(named, context)
        asked = caps.parse(f"agent:{row['spec']}?live=0")
        found = caps.scope_row(asked, self.state.cap(named))
        need(found is None, 403, fail=named, dim=found and DIM[found], need=asked.text())
        return named

    def check_gates(self, grants):
        for node in self.state.union(grants):
            gates = self.state.cap(node).gates
            if gates:
                raise Refuse(502 if gates[0] == "approval" else 510, fail=node, dim=DIM["gates"], rule=gates[0])

    def check_rates(self, nodes, now):
        late = None
        for node in nodes:
            rate, tat = self.state.cap(node).rate, self.state.get(METER, node)["tat"]
            if rate and tat > now + (rate[0] - 1) * rate[1]:
                at = tat - (rate[0] - 1) * rate[1]
                if late is None or at > late[0]:
                    late = (at, node)
        if late:
            raise Refuse(606, fail=late[1], dim=DIM["rate"], rtry=min(late[0], MAX_TIME))

    def check_budgets(self, nodes, amounts, declared, model=False):
        for node in nodes:
            meter, cap = self.state.get(METER, node), self.state.cap(node)
            for index in range(7):
                highest = cap.amounts[index]
                if highest is None:
                    continue
                dim, asked = AMOUNTS[index], amount(amounts, index)
                if index not in declared:
                    unpriced = model and dim == "cost_micro"
                    raise Refuse(607 if unpriced else 605, fail=node, dim=DIM[dim])
                spent, reserved = amount(meter["spnt"], index), amount(meter["rsvd"], index)
                said = {"fail": node, "dim": DIM[dim], "lim": limit(dim, highest, spent, reserved, asked)}
                need(spent + reserved <= MAX_U64, 602, **said)
                need(spent + reserved <= highest, 603, **said)
                need(spent + reserved + asked <= MAX_U64, 602, **said)
                need(spent + reserved + asked <= highest, 601, **said)

    def tick(self, nodes, now):
        for node in nodes:
            rate = self.state.cap(node).rate
            if rate:
                tat = self.state.get(METER, node)["tat"]
                self.state.change(METER, node, tat=min(MAX_U64, max(now, tat) + rate[1]))

    def held(self, parent, context, **said):
        """The parent of a delegation: known, held by the asker, live."""
        row = parent is not None and self.state.get(GRANT, parent)
        need(row, 308, **said)
        need(row["grnt"]["sub"] == context.asker, 302, fail=parent, **said)
        self.live(parent, context.time, **said)

    def check_below(self, parent, child, subject, **said):
        """Whether a filled capability may derive from a grant, for this subject."""
        above = self.state.cap(parent)
        need(above.depth >= 1, 309, fail=parent, **said)
        found = caps.row(child, above)
        if not found and (child.nbf or 0) >= (MAX_TIME if child.exp is None else child.exp):
            found = "time"
        if not found and child.depth >= above.depth:
            found = "depth"
        need(found is None, 311, fail=parent, dim=found and DIM[found], need=child.text(), **said)
        need(above.use != "no" or child.use == "no", 311, fail=parent, rule="use", need=child.text(), **said)
        conveyed = any(self.state.cap(node).use == "convey" and self.state.get(GRANT, node)["grnt"]["sub"] == subject
                       for node in self.state.chain(parent))
        need(not conveyed, 310, fail=parent, **said)

    def delegate(self, parent, text, context, subject, more, **said):
        """The filled capability of a grant that derives from another; `more`: how many this command made before."""
        child = parse_cap(text, **said)
        self.held(parent, context, **said)
        caps.fill(child, self.state.cap(parent))
        self.check_below(parent, child, subject, **said)
        count = self.state.get(METER, parent)["chld"] + more.get(parent, 0)
        need(count < 10_000, 604, fail=parent, dim=DIM["children"], lim=limit("children", 10_000, count, 0, 1), **said)
        self.check_count(sum(more.values()), **said)
        need(len(child.text().encode()) <= 4_096, 101, rule="a filled grant is longer than 4,096 bytes", **said)
        return child

    def check_count(self, more, **said):
        count = len(self.state.tables[GRANT]) + more
        need(count < 131_072, 604, dim=DIM["grants"], lim=limit("grants", 131_072, count, 0, 1), **said)

    # --- commands: the session --------------------------------------------------------------------------------------

    def rule_0002(self, command, context, right):
        digest, leaves = self.state.digest()
        return {"dig": digest, "leaf": leaves, "upto": context.seq - 1}, []

    def rule_0003(self, command, context, right):
        state = self.state
        need(command["why"] in (1, 2, 3), 101, rule="why")
        need(right or context.asker == state.get(SESSION, EMPTY)["opnr"], 312, **self.want(right, "cancel"))
        listed = any(row["open"] for row in state.tables[LISTED].values())
        need(state.open_calls == 0, 211, rule="a call is open")
        need(not listed, 211, rule="a session is open")
        need(self.committed, 211, rule="the state is not committed to")
        return {}, []

    @staticmethod
    def want(right, operations):
        return {} if right else {"need": "admin:#" + operations}

    def rule_0008(self, command, context, right):
        state = self.state
        need(command["opnr"] == context.asker, 101, rule="opener")
        need(state.get(LISTED, command["ses"]) is None, 206, rule="the session is listed")
        need(len(state.tables[LISTED]) < 131_072, 604, rule="sessions")
        roots, set_aside = [], {}
        for index, root in enumerate(command["root"]):
            cap = parse_cap(root["cap"], item=index)
            need(cap.exp is not None and cap.exp > context.time, 101, rule="exp", item=index)
            if root["from"] is not None:
                self.held(root["from"], context, item=index)
                self.check_below(root["from"], cap, context.asker, item=index)
                share = [(v or 0) - (v or 0) % 256 if i in (1, 2) else v or 0 for i, v in enumerate(cap.amounts)]
                self.add_up(set_aside, root["from"], share, item=index)
            roots.append({"from": root["from"], "cap": cap.text()})
        totals = {}
        for grant, sums in set_aside.items():
            for node in state.chain(grant):
                self.add_up(totals, node, sums)
        for node in sorted(totals, key=state.age.get):
            self.check_budgets([node], totals[node], range(7))
        reserved = [{"grnt": grant, "amts": trimmed(sums)} for grant, sums in set_aside.items()]
        return {"root": roots, "rsvd": reserved}, []

    @staticmethod
    def add_up(sums, grant, amounts, **said):
        total = sums.setdefault(grant, [0] * 7)
        for index, one in enumerate(amounts):
            total[index] += one
            need(total[index] <= MAX_U64, 602, fail=grant, dim=DIM[AMOUNTS[index]], **said)

    def rule_0009(self, command, context, right):
        row, how = self.state.get(LISTED, command["ses"]), command["how"]
        need(how in (1, 2), 101, rule="how")
        well = command["head"] is not None if how == 1 else command["head"] is None and not command["spnt"]
        need(well, 101, rule="head or spent")
        need(row is not None, 101, rule="no such session")
        need(row["open"], 206, rule="the session has ended")
        places, last = [one["grnt"] for one in row["rsvd"]], -1
        for index, one in enumerate(command["spnt"]):
            need(one["grnt"] in places[last + 1:], 101, rule="spent", item=index)
            last = places.index(one["grnt"])
            need(is_amounts(one["amts"]), 105, item=index)
        return {}, []

    # --- commands: agents -------------------------------------------------------------------------------------------

    def rule_0201(self, command, context, right):
        state = self.state
        need(is_name(command["spec"]), 102, rule="spec")
        self.check_plan(command)
        need(not any(one is not None for one in command["ask"]), 105, rule="a spawn has no reserve")
        need(not command["ngr"], 405)
        narrow = self.parse_narrow(command["narr"], 1)
        self.usable(command["grnt"], context, item=0)
        asked, scope = caps.parse(f"agent:{command['spec']}?live=1"), state.cap(command["grnt"])
        found = caps.scope_row(asked, scope)
        need(found is None, 403, fail=command["grnt"], item=0, dim=found and DIM[found], need=asked.text())
        if narrow and narrow[0]:
            self.check_narrow(asked, narrow[0], context, 0)
        for node in state.chain(command["grnt"]):
            highest, alive = state.cap(node).live, state.get(METER, node)["live"]
            if highest is not None:
                need(alive < highest, 604, fail=node, dim=DIM["live"], lim=limit("live", highest, alive, 0, 1))
        count, above = len(state.tables[AGENT]), state.get(AGENT, context.asker)
        need(count < 10_000, 608, dim=DIM["agents"], lim=limit("agents", 10_000, count, 0, 1))
        if above:
            need(above["dpth"] < 16, 608, dim=DIM["depth"], lim=limit("depth", 16, above["dpth"], 0, 1))
            need(above["chld"] < 100, 608, dim=DIM["children"], lim=limit("children", 100, above["chld"], 0, 1))
        nodes = state.union([command["grnt"]])
        self.check_rates(nodes, context.time)
        self.check_budgets(nodes, [], range(7))
        agent, grants, more = derive("id", self.session, u64(context.seq), u32(0)), [], {}
        for index, grant in enumerate(command["grs"]):
            child = self.delegate(grant["par"], grant["cap"], context, agent, more, item=index)
            more[grant["par"]] = more.get(grant["par"], 0) + 1
            grants.append({"par": grant["par"], "iss": context.asker, "sub": agent, "cap": child.text(), "ans": []})
        need(len(pack(grants)) <= 49_152, 101, rule="grants together")
        self.check_gates([command["grnt"]])
        return {"par": context.asker, "rsv": [], "grs": grants, "narr": [c and c.text() for c in narrow]}, []

    def parse_narrow(self, texts, needs):
        need(len(texts) in (0, needs), 101, rule="narrow: one per need, or none")
        return [text if text is None else parse_cap(text, item=index) for index, text in enumerate(texts)]

    def depth_below(self, principal):
        row = self.state.get(AGENT, principal)
        return row["dpth"] + 1 if row else 1

    def check_plan(self, command):
        plan, state = command["plan"], self.state
        need(is_name(plan["ws"]), 102, rule="plan.workstream")
        need(1 <= plan["phas"] <= 8 and 1 <= plan["then"] <= 4, 101, rule="plan.phase or plan.then")
        need(len(set(plan["req"])) == len(plan["req"]) and all(state.get(AGENT, one) for one in plan["req"]), 101,
             rule="plan.requires")
        need((plan["rtry"] is not None) == (plan["then"] == 4)
             and (not plan["rtry"] or max(plan["rtry"]["base"], plan["rtry"]["cap"]) <= DAY), 101, rule="plan.retry")
        lists = [("objectives", plan["obj"]), ("deliverables", [one["name"] for one in plan["del"]]),
                 ("milestones", [one["name"] for one in plan["mile"]])]
        for what, names in lists + [("milestones.members", one["mem"]) for one in plan["mile"]]:
            need(all(map(is_name, names)), 102, rule="plan." + what)
            need(len(set(names)) == len(names), 101, rule="plan." + what)
        if plan["repl"] is not None:
            row = state.get(AGENT, plan["repl"])
            need(row and row["spec"] == command["spec"] and row["stat"] == 5, 101, rule="plan.replaces")

    def agent(self, command):
        row = self.state.get(AGENT, command["agt"])
        need(row is not None, 101, rule=NO_AGENT)
        return row

    @staticmethod
    def agent_is(row, *states):
        need(row["stat"] in states, 206, rule=AGENT_STATES[row["stat"]])

    def rule_0202(self, command, context, right):
        state, row = self.state, self.agent(command)
        need(right or context.asker == row["par"], 312, **self.want(right, "pause"))
        self.must_run(context.asker)
        self.agent_is(row, 1)
        self.not_held(command["agt"])
        top = row["dpth"] == 1
        running = sum(1 for one in state.tables[AGENT].values()
                      if one["stat"] in (2, 3) and (not top or one["dpth"] == 1))
        highest = min(256, state.get(SESSION, EMPTY)["max"]) if top else 256
        need(running < highest, 608, dim=DIM["agents"], lim=limit("agents", highest, running, 0, 1))
        return {}, []

    def rule_0203(self, command, context, right):
        need(1 <= command["why"] <= 8, 101, rule="why")
        row = self.agent(command)
        need(context.asker == NODE or right or self.state.from_above(context.asker, command["agt"]), 312,
             **self.want(right, "pause"))
        self.agent_is(row, 2)
        return {}, []

    def rule_0204(self, command, context, right):
        row = self.agent(command)
        need(right or self.state.from_above(context.asker, command["agt"]), 312, **self.want(right, "pause"))
        self.agent_is(row, 3)
        need(right or context.asker == row["paus"], 312, **self.want(right, "pause"))
        return {}, []

    def rule_0205(self, command, context, right):
        need(1 <= command["why"] <= 8, 101, rule="why")
        row = self.agent(command)
        need(right or self.state.from_above(context.asker, command["agt"]), 312, **self.want(right, "cancel"))
        self.agent_is(row, 1, 2, 3)
        return {}, []

    def rule_0206(self, command, context, right):
        state, row, how = self.state, self.agent(command), command["how"]
        own = context.asker == command["agt"]
        need(how in (1, 2, 3), 101, rule="how")
        need({1: own, 2: own or context.asker == NODE, 3: context.asker == NODE}[how], 205)
        need(command["code"] <= 17 and (how == 3 or (command["code"] == 0) == (how == 1)), 101, rule="code")
        stopping = any(state.get(AGENT, one)["stat"] == 4 for one in (command["agt"], *state.above(command["agt"])))
        ends = (row["stat"] != 5 and stopping) if how == 3 else \
            row["stat"] == 2 or (row["stat"] == 1 and how == 2 and context.asker == NODE)
        need(ends, 206, rule=AGENT_STATES[row["stat"]])
        if own:
            self.not_held(command["agt"])
        need(row["call"] == 0 and row["chld"] == 0, 211, rule="a call or a child is open")
        need(row["stat"] != 2 or how == 3 or row["task"] == 0, 211, rule="a task is open")
        return {}, []

    # --- commands: tasks and messages -------------------------------------------------------------------------------

    def rule_0301(self, command, context, right):
        state = self.state
        need(is_name(command["name"]), 102, rule="name")
        need(1 <= command["prio"] <= 4, 101, rule="priority")
        need(10**6 <= command["tmo"] <= DAY, 101, rule="timeout")
        need(max(command["rtry"]["base"], command["rtry"]["cap"]) <= DAY, 101, rule="retry")
        row = self.agent(command)
        need(right or context.asker == command["agt"] or state.from_above(context.asker, command["agt"]), 312,
             **self.want(right, "pause"))
        self.agent_is(row, 1, 2, 3)
        for index, one in enumerate(command["req"]):
            need(one not in command["req"][:index], 101, rule="requires", item=index)
            task = state.get(TASK, one)
            need(task and task["agt"] == command["agt"], 209, item=index)
        need(row["task"] < 10_000, 604, dim=DIM["tasks"], lim=limit("tasks", 10_000, row["task"], 0, 1))
        return {}, []

    def task(self, command, context, status):
        row = self.state.get(TASK, command["task"])
        need(row and row["agt"] == context.asker, 209)
        need(row["stat"] == status, 206, rule=TASK_STATES[row["stat"]])
        return row

    def rule_0302(self, command, context, right):
        row = self.task(command, context, 1)
        need(command["att"] == row["att"] + 1, 206, rule="attempt")
        need(row["nbf"] is None or context.time >= row["nbf"], 210, rtry=row["nbf"])
        need(not row["req"], 211, rule="a required task has not completed")
        return {}, []

    def rule_0303(self, command, context, right):
        need(command["att"] == self.task(command, context, 2)["att"], 206, rule="attempt")
        return {}, []

    def rule_0304(self, command, context, right):
        need(1 <= command["code"] <= 17, 101, rule="code")
        row = self.task(command, context, 2)
        need(command["att"] == row["att"], 206, rule="attempt")
        if not command["rtbl"] or row["att"] >= row["rtry"]["max"]:
            return {"nbf": None}, []
        delay = min(row["rtry"]["cap"], row["rtry"]["base"] << min(64, row["att"] - 1))
        jitter = int.from_bytes(derive("jitter", command["task"], u16(row["att"]))[:8], "big")
        return {"nbf": min(MAX_TIME, context.time + (delay * (2**64 + jitter) >> 65))}, []

    def rule_0307(self, command, context, right):
        need(command["why"] in (1, 2, 3), 101, rule="why")
        row = self.state.get(TASK, command["task"])
        need(row is not None, 209)
        need(right or row["agt"] == context.asker, 301, need=self.reach(row["agt"]))
        need(row["stat"] == 1, 206, rule=TASK_STATES[row["stat"]])
        return {}, []

    def rule_0401(self, command, context, right):
        state = self.state
        need(context.blobs[command["cont"]][0] <= 4_096, 101, rule="content: longer than 1 MiB")
        row, sender = state.get(AGENT, command["to"]), state.get(AGENT, context.asker)
        need(row is not None, 101, rule=NO_AGENT)
        need(right or context.asker == row["par"] or (sender and sender["par"] == command["to"]), 301,
             need=self.reach(command["to"]))
        need(row["stat"] != 5, 208)
        box = state.get(MAILBOX, command["to"])
        unread = len(box["unrd"]) if box else 0
        need(unread < 1_024, 609)
        return {}, []

    def reach(self, agent):
        return f"agent:{self.state.get(AGENT, agent)['spec']}?live=0"

    def rule_0402(self, command, context, right):
        box = self.state.get(MAILBOX, context.asker)
        need(box and command["msg"] in box["unrd"], 212)
        return {}, []

    # --- commands: grants -------------------------------------------------------------------------------------------

    def rule_0501(self, command, context, right):
        state, asked = self.state, command["grnt"]
        need(state.get(PRINCIPAL, asked["to"]) is not None, 101, rule="to")
        need(state.alive(asked["to"]), 204, rule="to")
        if asked["par"] is None:
            cap = parse_cap(asked["cap"])
            need(cap.exp is not None and cap.exp > context.time, 101, rule="exp")
            self.check_count(0)
        else:
            cap = self.delegate(asked["par"], asked["cap"], context, asked["to"], {})
        return {"grnt": {"par": asked["par"], "iss": context.asker, "sub": asked["to"], "cap": cap.text(),
                         "ans": []}}, []

    def rule_0502(self, command, context, right):
        row = self.state.get(GRANT, command["grnt"])
        need(row is not None, 301)
        above = [self.state.get(GRANT, node)["grnt"] for node in self.state.chain(command["grnt"])[1:]]
        standing = 4 if right else 1 if row["grnt"]["sub"] == context.asker else \
            2 if row["grnt"]["iss"] == context.asker else \
            3 if any(context.asker in (one["sub"], one["iss"]) for one in above) else None
        need(standing is not None, 313, fail=command["grnt"], need="admin:#revoke-any")
        return {"std": standing, "alr": row["rvk"]}, []

    # --- commands: tools --------------------------------------------------------------------------------------------

    def check_tool(self, tool, **said):
        need(is_name(tool["name"]), 102, **said)
        need(1 <= tool["eff"] <= 4, 101, rule="effect class", **said)
        need(1 <= tool["mod"] <= 3, 101, rule="execution model", **said)
        need(len(tool["facts"]) <= 32 and len(tool["needs"]) <= 32, 101, rule="too many facts or needs", **said)
        pointers = {}
        for fact in tool["facts"]:
            need(1 <= fact["typ"] <= 5, 101, rule="fact type", **said)
            need(fact["ptr"] not in pointers and caps.is_pointer(fact["ptr"]), 101, rule="fact pointer", **said)
            pointers[fact["ptr"]] = fact["typ"]
        facts = {pointer: (typ, SAMPLES[typ]) for pointer, typ in pointers.items()}
        for one in tool["needs"]:
            need(len(one["text"].encode()) <= 1_024, 101, rule="need", **said)
            need(one["when"] is None or pointers.get(one["when"]) == 2, 101, rule="need.when is no declared boolean",
                 **said)
            try:
                caps.parse(one["text"], facts)
            except MissingFact:
                raise Refuse(101, rule="need", **said) from None
            except CapError as error:
                raise Refuse(error.code, rule="need", **said) from None
        dims = set()
        for one in tool["rsv"]:
            need(20 <= one["dim"] <= 25 and one["dim"] not in dims, 101, rule="reserve dimension", **said)
            dims.add(one["dim"])
            need(one["ptr"] is None or pointers.get(one["ptr"]) == 1, 101,
                 rule="reserve pointer is no declared integer", **said)

    def check_cite(self, cite, **said):
        fits = cite is None if self.system_ref is None else cite and cite["ses"] == self.system_ref["ses"]
        need(fits, 101, rule="cite", **said)

    def rule_0610(self, command, context, right):
        need(command["tool"], 101, rule="no tool")
        names = [binding["tool"]["name"] for binding in command["tool"]]
        for index, binding in enumerate(command["tool"]):
            need(names[index] not in names[:index], 101, rule="a name twice", item=index)
            self.check_tool(binding["tool"], item=index)
            self.check_cite(binding["cite"], item=index)
            bound = self.state.get(TOOL, names[index].encode())
            need(bound or binding["repl"] is None, 401, item=index)
            need(binding["repl"] == (bound and bound["dig"]), 402, item=index)
        return {}, []

    def rule_0601(self, command, context, right):
        need(command["stat"] in (1, 2), 101, rule="state")
        self.check_tool(command["tool"])
        row = self.state.get(TOOL, command["tool"]["name"].encode())
        need(not row or (row["dig"] != command["tool"]["dig"] and not (command["stat"] == 1 and row["stat"] == 2)), 206,
             rule=row and TOOL_STATES[row["stat"]])
        need(row or len(self.state.tables[TOOL]) < 16_384, 604, rule="tools")
        return {}, []

    def known_tool(self, command):
        row = self.state.get(TOOL, command["name"].encode())
        need(row is not None, 401)
        need(row["dig"] == command["dig"], 402)
        return row

    def rule_0602(self, command, context, right):
        state = self.known_tool(command)["stat"]
        need(state != 2, 206, rule=TOOL_STATES[state])
        return {}, []

    def rule_0606(self, command, context, right):
        need(command["why"] in (1, 2, 3, 5), 101, rule="why")
        state = self.known_tool(command)["stat"]
        need(state == 2, 206, rule=TOOL_STATES[state])
        return {}, []

    def rule_0611(self, command, context, right):
        need(1 <= command["why"] <= 5, 101, rule="why")
        need(self.system_ref and command["cite"]["ses"] == self.system_ref["ses"], 101, rule="cite")
        need(self.known_tool(command)["unbd"] is None, 206, rule="unbound")
        return {}, []

    # --- commands: calls --------------------------------------------------------------------------------------------

    def rule_0701(self, command, context, right):
        state = self.state
        need(is_name(command["tool"]), 102, rule="tool")
        if command["unft"] is not None:
            known = command["unft"] in (111, 401, *range(407, 415), 611)
            raise Refuse(command["unft"]) if known else Refuse(101, rule="unfit")
        need(command["det"] is None, 101, rule="detail without unfit")
        need(command["par"] is None, 101, rule="parent: not built in these rules")
        if command["task"] is not None:
            self.task(command, context, 2)
        tool = state.get(TOOL, command["tool"].encode()) if self.class_ == 2 else None
        need(tool is not None, 401)
        need(tool["dig"] == command["dig"], 402)
        need(tool["unbd"] is None, 408 if tool["unbd"] == 4 else 409)
        executor = self.executor(tool["mod"])
        need(executor is not None, 205, rule="no executor")
        facts = self.read_facts(tool, command["fact"])
        needs = self.make_needs(tool, command, facts)
        model = any(one.kind == "model" for one in needs)
        need(model or not self.pieces, 101, rule="pieces: only what is sent to a model has them")
        reserve, declared = self.worst_case(tool, facts)
        reserve = self.lower(reserve, declared, command["ask"])
        narrow = self.parse_narrow(command["narr"], len(needs))
        texts, grants = [one.text() for one in needs], [command["grnt"], *command["ngr"]]
        need(len(grants) == len(needs), 405, item=len(grants), need=dict(enumerate(texts)).get(len(grants)))
        for index, grant in enumerate(grants):
            self.usable(grant, context, item=index, need=texts[index])
        for index, (one, grant) in enumerate(zip(needs, grants)):
            found = caps.scope_row(one, state.cap(grant))
            need(found is None, 402 if found == "digest" else 403, fail=grant, item=index, dim=found and DIM[found],
                 need=texts[index])
        for index, scope in enumerate(narrow):
            if scope:
                self.check_narrow(needs[index], scope, context, index)
                over = next((name for i, name in enumerate(AMOUNTS) if scope.amounts[i] is not None
                             and (i not in declared or amount(reserve, i) > scope.amounts[i])), None)
                need(over is None, 404, item=index, dim=over and DIM[over])
        busy = state.open_calls + state.doubts
        need(busy < 16_384, 604, dim=DIM["in_flight"], lim=limit("in_flight", 16_384, busy, 0, 1))
        nodes = state.union(grants)
        self.check_rates(nodes, context.time)
        self.check_budgets(nodes, reserve, declared, model)
        self.check_gates(grants)
        deadline = self.earliest_end(nodes)
        if 5 in declared:
            deadline = min(deadline, context.time + amount(reserve, 5))
        self.admitted = executor, tool, nodes
        return {"mod": tool["mod"], "rsv": reserve, "dead": deadline, "rule": None,
                "narr": [c and c.text() for c in narrow]}, []

    def earliest_end(self, nodes):
        return min((cap.exp for cap in map(self.state.cap, nodes) if cap.exp is not None), default=MAX_TIME)

    def executor(self, model):
        able = [who for who, row in self.state.tables[PRINCIPAL].items()
                if row["kind"] == EXECUTOR and row["mods"] >> model - 1 & 1]
        return min(able, default=None)

    def read_facts(self, tool, given):
        order = {fact["ptr"]: (index, fact["typ"]) for index, fact in enumerate(tool["facts"])}
        facts, last = {}, -1
        for fact in given:
            place, typ = order.get(fact["ptr"], (-1, None))
            need(place > last, 101, rule="facts: undeclared, twice or out of order")
            last = place
            whole = typ in (1, 2)
            need((fact["int"] is not None) == whole and (fact["text"] is not None) != whole
                 and (typ != 2 or fact["int"] in (0, 1)), 101, rule="facts: type")
            try:
                if typ == 4:
                    caps.path_fact(fact["text"])
                elif typ == 5:
                    caps.check_host(fact["text"])
            except CapError as error:
                raise Refuse(error.code, rule="facts") from None
            facts[fact["ptr"]] = (typ, fact["int"] if whole else fact["text"])
        return facts

    def make_needs(self, tool, command, facts):
        first = caps.Cap("tool")
        first.name, first.digest, first.closed = command["tool"], frozenset((tool["dig"].hex(),)), not command["extr"]
        for pointer, (typ, value) in facts.items():
            first.args[pointer] = ("path", (*caps.path_fact(value), False)) if typ == 4 else ("host", value) \
                if typ == 5 else ("set", (bool(value) if typ == 2 else value,))
        if command["extr"]:
            for fact in tool["facts"]:
                first.args.setdefault(fact["ptr"], ("absent", None))
        needs = [first]
        for one in tool["needs"]:
            if one["when"] is None or facts.get(one["when"], (2, 0))[1]:
                try:
                    needs.append(caps.parse(one["text"], facts))
                except MissingFact:
                    raise Refuse(111, rule="facts") from None
                except CapError as error:
                    raise Refuse(error.code, rule="facts") from None
        return needs

    def worst_case(self, tool, facts):
        values, declared = [1] + [0] * 6, {0}
        for one in tool["rsv"]:
            units = facts.get(one["ptr"], (1, 0))[1] if one["ptr"] else 0
            index = one["dim"] - DIM["calls"]
            need(units >= 0, 105, dim=one["dim"])
            values[index] = one["base"] + one["per"] * units
            need(values[index] <= MAX_U64, 105, dim=one["dim"])
            if index in (1, 2):
                values[index] = min(MAX_U64, -(-values[index] // 256) * 256)
            declared.add(index)
        return trimmed(values), declared

    @staticmethod
    def lower(reserve, declared, asked):
        values = [amount(reserve, index) for index in range(7)]
        for index, one in enumerate(asked):
            if one is not None:
                whole = one % 256 == 0 if index in (1, 2) else index > 0 or one == 1
                need(whole and index in declared and one <= values[index], 105, dim=DIM[AMOUNTS[index]])
                values[index] = one
        return trimmed(values)

    def check_narrow(self, one, scope, context, index):
        found = caps.scope_row(one, scope)
        if not found and not (scope.nbf or 0) <= context.time < (MAX_TIME if scope.exp is None else scope.exp):
            found = "time"
        need(found is None, 404, item=index, dim=found and DIM[found])
        need(scope.use == "yes", 404, item=index, rule="use")

    def open_call(self, command, known_only=False):
        row = self.state.get(CALLS, command["call"])
        need(row is not None, 701)
        need(known_only or row["ended"] is None, 702)
        return row

    def rule_0703(self, command, context, right):
        out, box, wasm, use = command["out"], command["sbx"], command["wasm"], command["use"]
        need(1 <= out["kind"] <= 16, 101, rule="outcome")
        need(not box or (box["cut"] < 4 and 1 <= box["req"] <= box["lvl"] <= 3
                         and box["sta"] <= box["end"] <= MAX_TIME), 101, rule="sandbox")
        need(not wasm or (wasm["gden"] <= wasm["gask"] and wasm["clk"] <= MAX_TIME), 101, rule="wasm")
        need(command["of"] is None, 101, rule="of: not built in these rules")
        need(is_amounts(command["act"]), 105)
        need(not use or use["tcch"] <= use["tin"], 101, rule="usage")
        need(not use or use["tin"] + use["tout"] == amount(command["act"], 3), 105, dim=DIM["tokens"], rule="usage")
        row = self.open_call(command)
        need(context.asker == row["exec"] or (context.asker == NODE and out["kind"] in (10, 11)), 703)
        need(command["att"] == row["att"], 206, rule="attempt")
        actual, reserve = command["act"], row["rsv"]
        charged = without_calls(actual if out["kind"] < 10 else reserve if out["kind"] < 12 else [])
        over = trimmed(max(0, amount(charged, i) - amount(reserve, i)) for i in range(7))
        above = [self.state.get(GRANT, node) for node in self.state.union(row["grs"])]
        late = any(one["rvk"] or not self.state.alive(one["grnt"]["sub"]) for one in above)
        changed = charged if charged != without_calls(actual) else None
        return {"chg": changed, "over": over or None, "late": late}, [row["seq"]]

    def rule_0704(self, command, context, right):
        need(1 <= command["caus"] <= 7, 101, rule="cause")
        need((100 if command["caus"] == 1 else 0) <= command["stat"] <= 999, 101, rule="status")
        need(not command["use"] or command["use"]["tcch"] <= command["use"]["tin"], 101, rule="usage")
        row = self.open_call(command)
        lost = command["caus"] in (6, 7)
        need(context.asker == row["exec"] or (context.asker == NODE and lost), 703)
        need(command["att"] == row["att"], 206, rule="attempt")
        need(not row["cncl"], 211, rule="the call is to be stopped")
        need(row["eff"] in (1, 2), 211, rule="it must not run twice")
        need(row["att"] < 4, 211, rule="no more attempts")
        deadline = self.renewed(row, context.time) if lost else row["dead"]
        need(max(command["nbf"], context.time) < deadline, 211, rule=LATER)
        if lost:
            self.check_budgets(self.state.union(row["grs"]), without_calls(row["rsv"]), range(7))
        return {}, [row["seq"]]

    def renewed(self, row, now):
        """The deadline of a call whose attempt was lost."""
        end, wall = self.earliest_end(self.state.union(row["grs"])), amount(row["rsv"], 5)
        return min(end, now + wall) if wall else end

    def rule_0705(self, command, context, right):
        need(1 <= command["why"] <= 4, 101, rule="why")
        row = self.open_call(command)
        own = context.asker == row["prin"] or (self.state.get(AGENT, row["prin"])
                                               and self.state.from_above(context.asker, row["prin"]))
        need(right or own, 312, **self.want(right, "cancel"))
        need(not row["cncl"], 206, rule="the call is to be stopped")
        return {}, [row["seq"]]

    def rule_0706(self, command, context, right):
        need(command["verd"] in (1, 2, 3), 101, rule="verdict")
        row = self.open_call(command, True)
        need(row["dubt"], 206, rule="the outcome is not in doubt")
        return {}, [row["seq"]]

    # --- commands: principals and what is seen ----------------------------------------------------------------------

    def rule_0b01(self, command, context, right):
        need(command["kind"] in (HUMAN, SERVICE), 101, rule="kind")
        need(command["cust"] in (1, 2), 101, rule="custody")
        for index, key in enumerate(command["keys"]):
            need(key not in command["keys"][:index], 101, item=index, rule="a key twice")
            row = self.state.get(KEY, key)
            need(row is not None, 109, item=index, rule="not granted")
            need(row["role"] in (ROLE_OPERATOR, ROLE_REDACT, ROLE_TOKEN), 125, item=index, rule=ROLE_NAMES[row["role"]])
            need(row["ownr"] is None, 108, item=index)
        need(sum(1 for row in self.state.tables[PRINCIPAL].values() if row["kind"] != AGENT_KIND) < 65_536, 604,
             rule="principals")
        return {}, []

    def rule_0e01(self, command, context, right):
        need(1 <= command["what"] <= 9, 101, rule="what")
        if command["call"] is not None and context.asker != NODE:
            row = self.state.get(CALLS, command["call"])
            need(row is not None, 701)
            need(row["exec"] == context.asker, 703)
        return {}, []

    def rule_0e02(self, command, context, right):
        need(command["lvls"] < 4, 101, rule="levels")
        return {}, []

    # --- what an event changes --------------------------------------------------------------------------------------

    committed = False
    pieces = False

    def apply(self, kind, body, context):
        self.committed = kind == COMMIT
        self.ordinal = 0
        effect = getattr(self, "apply_%04x" % kind, None)
        if effect:
            effect(body, context)
        if context.cmd and context.cmd["sig"] is not None:
            record = SignedCommand(context.cmd["sig"])
            self.state.put(NONCE, record.key + record.nonce, {"seq": context.seq, "til": record.not_after})

    def apply_refusal(self, entry, kind, command, body):
        self.committed = False
        minute, row = entry.time // 60_000_000, self.state.get(REFUSALS, entry.principal)
        if row is None or row["min"] != minute:
            row = {"min": minute, "cnt": [], "seen": []}
        counts = dict(map(tuple, row["cnt"]))
        counts[body["code"]] = counts.get(body["code"], 0) + 1
        tool = command["tool"].encode() if kind == CALL else b""
        text = (body["need"] or "").encode()
        seen = set(row["seen"])
        digest = derive("refusal-seen", u16(body["code"]), u32(len(tool)), tool, u32(len(text)), text)
        if len(seen) < 256:
            seen.add(digest)
        self.state.put(REFUSALS, entry.principal, {"min": minute, "cnt": [list(one) for one in sorted(counts.items())],
                                                   "seen": sorted(seen)})

    def apply_0002(self, body, context):
        state, session = self.state, self.state.get(SESSION, EMPTY)
        state.commits += 1
        if context.seq == session["next"]:  # only then: a commitment in between leaves what is due
            state.change(SESSION, EMPTY, next=session["next"] + self.interval)
        for table in (CALLS, TASK):
            gone = [key for key, row in state.tables[table].items()
                    if row["ended"] is not None and row["ended"] + 2 <= state.commits and not row.get("dubt")]
            for key in gone:
                state.remove(table, key)
        for key in [key for key, row in state.tables[NONCE].items() if row["til"] <= context.time]:
            state.remove(NONCE, key)

    def apply_0003(self, body, context):
        self.state.change(SESSION, EMPTY, clsd=True)

    def apply_0008(self, body, context):
        self.state.put(LISTED, body["ses"], {"opnr": body["opnr"], "open": True, "rsvd": body["rsvd"]})
        for one in body["rsvd"]:
            self.state.reserve(self.state.chain(one["grnt"]), one["amts"])

    def apply_0009(self, body, context):
        row = self.state.get(LISTED, body["ses"])
        for one in row["rsvd"]:
            self.state.release(self.state.chain(one["grnt"]), one["amts"])
        for one in body["spnt"]:
            self.state.reserve(self.state.chain(one["grnt"]), one["amts"], spent=True)
        self.state.change(LISTED, body["ses"], open=False, rsvd=[])

    def apply_0201(self, body, context):
        state, agent = self.state, self.new_id(context.seq)
        state.put(PRINCIPAL, agent, {"kind": AGENT_KIND, "aliv": True, "cust": 1, "keys": [], "mods": 0,
                                     "abov": body["par"]})
        state.put(AGENT, agent, {"spec": body["spec"], "sdig": body["sdig"], "stat": 1, "paus": None,
                                 "par": body["par"], "dpth": self.depth_below(body["par"]), "grnt": body["grnt"],
                                 "plan": body["plan"], "chld": 0, "call": 0, "task": 0, "dubt": 0})
        if state.get(AGENT, body["par"]):
            state.add_to(AGENT, body["par"], "chld", 1)
        nodes = state.union([body["grnt"]])
        self.tick(nodes, context.time)
        for node in nodes:
            state.add_to(METER, node, "live", 1)
        for grant in body["grs"]:
            state.add_grant(self.new_id(context.seq), grant)

    def apply_0202(self, body, context):
        self.state.change(AGENT, body["agt"], stat=2)

    def apply_0203(self, body, context):
        self.state.change(AGENT, body["agt"], stat=3, paus=context.asker)

    def apply_0204(self, body, context):
        self.state.change(AGENT, body["agt"], stat=2, paus=None)

    def apply_0205(self, body, context):
        self.state.change(AGENT, body["agt"], stat=4, paus=None)
        self.stop_calls(lambda row: row["prin"] == body["agt"] or (self.state.get(AGENT, row["prin"])
                                                                   and body["agt"] in self.state.above(row["prin"])))

    def stop_calls(self, which):
        for call, row in self.state.tables[CALLS].items():
            if row["ended"] is None and not row["cncl"] and which(row):
                self.state.change(CALLS, call, cncl=True)

    def apply_0206(self, body, context):
        state, agent = self.state, body["agt"]
        row = state.get(AGENT, agent)
        state.change(AGENT, agent, stat=5, paus=None, task=0)
        state.change(PRINCIPAL, agent, aliv=False)
        if state.get(AGENT, row["par"]):
            state.add_to(AGENT, row["par"], "chld", -1)
        for node in state.chain(row["grnt"]):
            state.add_to(METER, node, "live", -1)
        for key, task in state.tables[TASK].items():
            if task["agt"] == agent and task["ended"] is None:
                state.change(TASK, key, stat=6, nbf=None, due=None, ended=state.commits)
        state.remove(MAILBOX, agent)

    def apply_0301(self, body, context):
        state, key = self.state, self.new_id(context.seq)
        missing = [one for one in body["req"] if state.get(TASK, one)["stat"] != 3]
        state.put(TASK, key, {"agt": body["agt"], "stat": 1, "att": 0, "tmo": body["tmo"], "rtry": body["rtry"],
                              "nbf": None, "due": None, "req": missing, "ended": None})
        state.add_to(AGENT, body["agt"], "task", 1)

    def apply_0302(self, body, context):
        row = self.state.get(TASK, body["task"])
        self.state.change(TASK, body["task"], stat=2, att=body["att"], nbf=None,
                          due=min(MAX_TIME, context.time + row["tmo"]))

    def end_task(self, key, stat):
        state, row = self.state, self.state.get(TASK, key)
        state.change(TASK, key, stat=stat, nbf=None, due=None, ended=state.commits)
        state.add_to(AGENT, row["agt"], "task", -1)

    def apply_0303(self, body, context):
        self.end_task(body["task"], 3)
        for key, row in self.state.tables[TASK].items():
            if body["task"] in row["req"]:
                self.state.change(TASK, key, req=[one for one in row["req"] if one != body["task"]])

    def apply_0304(self, body, context):
        if body["nbf"] is None:
            self.end_task(body["task"], 4)
        else:
            self.state.change(TASK, body["task"], stat=1, nbf=body["nbf"], due=None)

    def apply_0307(self, body, context):
        self.end_task(body["task"], 7)

    def apply_0401(self, body, context):
        box = self.state.get(MAILBOX, body["to"]) or {"unrd": []}
        self.state.put(MAILBOX, body["to"], {"unrd": box["unrd"] + [self.new_id(context.seq)]})

    def apply_0402(self, body, context):
        unread = [one for one in self.state.get(MAILBOX, context.asker)["unrd"] if one != body["msg"]]
        if unread:
            self.state.change(MAILBOX, context.asker, unrd=unread)
        else:
            self.state.remove(MAILBOX, context.asker)

    def apply_0501(self, body, context):
        self.state.add_grant(self.new_id(context.seq), body["grnt"])

    def apply_0502(self, body, context):
        self.state.change(GRANT, body["grnt"], rvk=True)
        self.stop_calls(lambda row: any(body["grnt"] in self.state.chain(grant) for grant in row["grs"]))

    def put_tool(self, tool, stat, file):
        row = {name: tool[name] for name in ("dig", "facts", "needs", "eff", "rsv", "mod")}
        self.state.put(TOOL, tool["name"].encode(), {**row, "unbd": None, "stat": stat, "file": file})

    def apply_0601(self, body, context):
        self.put_tool(body["tool"], body["stat"], body["file"])

    def apply_0602(self, body, context):
        self.state.change(TOOL, body["name"].encode(), stat=2)

    def apply_0606(self, body, context):
        self.state.change(TOOL, body["name"].encode(), stat=4)

    def apply_0610(self, body, context):
        for binding in body["tool"]:
            self.put_tool(binding["tool"], None, None)

    def apply_0611(self, body, context):
        self.state.change(TOOL, body["name"].encode(), unbd=body["why"])

    def apply_0701(self, body, context):
        state = self.state
        executor, tool, nodes = self.admitted
        state.put(CALLS, self.new_id(context.seq), {
            "seq": context.seq, "prin": context.asker, "exec": executor, "grs": [body["grnt"], *body["ngr"]],
            "rsv": body["rsv"], "dead": body["dead"], "att": 1, "dpth": 0, "eff": tool["eff"], "cncl": False,
            "dubt": False, "ended": None})
        state.open_calls += 1
        self.tick(nodes, context.time)
        state.reserve(nodes, [1], spent=True)
        state.reserve(nodes, without_calls(body["rsv"]))
        for node in nodes:
            state.add_to(METER, node, "flgt", 1)
        if state.get(AGENT, context.asker):
            state.add_to(AGENT, context.asker, "call", 1)

    def apply_0703(self, body, context):
        state, row = self.state, self.state.get(CALLS, body["call"])
        nodes = state.union(row["grs"])
        state.release(nodes, without_calls(row["rsv"]))
        state.reserve(nodes, without_calls(body["act"] if body["chg"] is None else body["chg"]), spent=True)
        for node in nodes:
            state.add_to(METER, node, "flgt", -1)
        agent = state.get(AGENT, row["prin"])
        if agent:
            state.add_to(AGENT, row["prin"], "call", -1)
        kind = body["out"]["kind"]
        doubt = kind == 11 or (kind == 10 and row["eff"] in (3, 4))
        state.change(CALLS, body["call"], dubt=doubt, ended=state.commits)
        state.open_calls -= 1
        state.doubts += doubt
        if agent and doubt:
            state.add_to(AGENT, row["prin"], "dubt", 1)

    def apply_0704(self, body, context):
        row = self.state.get(CALLS, body["call"])
        self.state.change(CALLS, body["call"], att=row["att"] + 1)
        if body["caus"] in (6, 7):
            self.state.change(CALLS, body["call"], dead=self.renewed(row, context.time))
            self.state.reserve(self.state.union(row["grs"]), without_calls(row["rsv"]), spent=True)

    def apply_0705(self, body, context):
        self.state.change(CALLS, body["call"], cncl=True)

    def apply_0706(self, body, context):
        state, row = self.state, self.state.get(CALLS, body["call"])
        state.change(CALLS, body["call"], dubt=False, ended=state.commits)
        state.doubts -= 1
        if state.get(AGENT, row["prin"]):
            state.add_to(AGENT, row["prin"], "dubt", -1)

    def apply_0b01(self, body, context):
        who = self.new_id(context.seq)
        self.state.put(PRINCIPAL, who, {"kind": body["kind"], "aliv": True, "cust": body["cust"], "keys": body["keys"],
                                        "mods": 0, "abov": None})
        for key in body["keys"]:
            self.state.change(KEY, key, ownr=who)


def without_calls(amounts):
    return trimmed([0, *amounts[1:]])


def _short(value):
    """A value for people: bytes as hex, at most 300 characters."""
    def show(one):
        if isinstance(one, bytes):
            return one.hex()[:16]
        if isinstance(one, dict):
            return {key: show(item) for key, item in one.items() if item is not None}
        return [show(item) for item in one] if isinstance(one, (list, tuple)) else one
    return str(show(value))[:300]


class SignedCommand:
    """A signed command as it stands in `sig`."""

    def __init__(self, data):
        if len(data) < 160:
            raise Finding("COMMAND_SIG_INVALID", "sig", "too short")
        self.session, self.nonce, self.key = data[:32], data[32:48], data[48:80]
        self.kind, self.schema, self.not_after, length = struct.unpack(">HHQI", data[80:96])
        if len(data) != 160 + length or length > 16_384:
            raise Finding("COMMAND_SIG_INVALID", "sig", "another length")
        self.body, self.signed, self.signature = data[96:-64], data[:-64], data[-64:]

    def verify(self, public):
        try:
            check_signature(public, "toka-command-sig-v1", derive("command", self.signed), self.signature)
        except Finding as finding:
            raise Finding("COMMAND_SIG_INVALID", "sig", finding.code) from None
