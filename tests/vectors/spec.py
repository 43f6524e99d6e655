#!/usr/bin/env python3
"""An independent implementation of onebyte's arithmetic and segments (arith 1, wire 1), in plain Python integers.

Written from the specification's text alone, never from the C code; uses only the standard library.  Usage:

    python3 tests/vectors/spec.py                     rewrites tests/vectors/arith.json
    python3 tests/vectors/spec.py --check FILE ...     recomputes what such a file holds; exit 1 on a difference
                                                       (also reads the three runs of ../shared/vectors/arith1.json)

arith.json is {"runs": [...], "refused": [...], "codec": [...], "data": [...], "philox": [...], "retract": {...}}.

Run:      manifest (its exact bytes), run_id, machines {id: Ed25519 seed}, cuts {id: seq}, m0 and m (tensors in number order =
          byte order of names, row-major), digest0 and digest (of m0 and m), state0 and state (BLAKE2b of the state
          bytes), lambda [[step, y], ..], streams [{machine, seq, domain, tensor, words [8]}] , u (first two entries of the
          digest vector of tensor 0), segments, clock (sum of weights), step, frontier (bytes), frontier_digest,
          binding, and for pace sync `rounds` [{round, frontier, frontier_digest, digest, binding}] for the
          restricted frontier.  wraps: true if an entry left its width, so that digest deltas do not hold.
Segment:  machine, pred (full id), wire (with signature), id, weight (W), lam (Lambda), L0 and L (per tensor: before and
          after the energy bound), mask (1 = this record counts, final cuts applied), counted (its code, or 0 if it does not count),
          digest_delta (what folding it adds to the digest, mod p; null where the run wraps).
          Segments are in the order of each machine's feed; machines follow each other.
refused:  a segment that some rule of SPEC 6 refuses: why, run_id, machine, pred, pred_end, pred_step, k, sync,
          records_max, n0, wire.  Its signature is right unless `why` speaks of the signature.
accepted: the same form, but valid.
codec:    g in; r (f16 bits) and codes out; history: g sealed before, oldest first; unit (multiple of 2^-24, 0 = rms).
          g null = non-finite.  No 32 g / r lies within 1e-6 of a rounding boundary, nor r near one of f16.
data:     example index of (machine key, seq, K, N).
philox:   Random123 known answers: ctr, key, out.
retract:  an owner's signed retraction: run_id, owner, machine, seq, message (signed bytes), sig.
All u64 that may exceed 2^63, all keys, ids and bytes are hex strings (numbers as 16 digits, bytes in their order).
"""
import hashlib, json, math, os, random, struct, sys

P = (1 << 61) - 1
A, B, DENSE, GAUSS, DATA, DIGEST_U, DIGEST_W = range(7)
NONE = (1 << 64) - 1
ZERO = bytes(32)


def h256(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


# ---- SPEC 2: random words ------------------------------------------------------------------------------------------

def philox(ctr, key):
    c, (k0, k1), m = list(ctr), key, 0xFFFFFFFF
    for _ in range(10):
        x, y = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(y >> 32) ^ c[1] ^ k0, y & m, (x >> 32) ^ c[3] ^ k1, x & m]
        k0, k1 = (k0 + 0x9E3779B9) & m, (k1 + 0xBB67AE85) & m
    return c


def stream_key(run_id, machine):
    return struct.unpack("<II", h256(run_id, machine)[:8])


def words(key, domain, tensor, seq, n):
    out = []
    for block in range((n + 3) // 4):
        out += philox([block, domain << 24 | tensor, seq & 0xFFFFFFFF, seq >> 32], key)
    return out[:n]


def signs(key, domain, tensor, seq, n):
    w = words(key, domain, tensor, seq, (n + 31) // 32)
    return [1 if w[i // 32] >> (i % 32) & 1 else -1 for i in range(n)]


def gauss(key, tensor, seq, n):
    w = words(key, GAUSS, tensor, seq, 2 * n)
    return [bin(w[2 * i]).count("1") + bin(w[2 * i + 1]).count("1") - 32 for i in range(n)]


def rows_cols(shape):
    if len(shape) < 2:
        return (math.prod(shape), 1)
    return (shape[0], math.prod(shape[1:]))


def direction(kind, key, tensor, shape, seq):
    """h of one record, row-major."""
    m, n = rows_cols(shape)
    if kind == "gaussian":
        return gauss(key, tensor, seq, m * n)
    if kind == "rank1" and len(shape) >= 2:
        a, b = signs(key, A, tensor, seq, m), signs(key, B, tensor, seq, n)
        return [x * y for x in a for y in b]
    return signs(key, DENSE, tensor, seq, m * n)


def example_index(key, seq, k, n):
    w = words(key, DATA, 0, seq // k, 2)
    return n * (w[0] + (w[1] << 32)) >> 64


# ---- SPEC 4: coefficient -------------------------------------------------------------------------------------------

class Rules:
    def __init__(self, text):
        self.text, self.run_id = text, h256(text.encode())
        o = json.loads(text)
        assert o["arith"] == 1
        self.direction, self.n0, self.steps = o["direction"], o["n0"], o["steps"]
        self.k, self.unit, self.sync = o.get("K", 1), o.get("unit"), o.get("pace", "async") == "sync"
        self.share, self.burst, self.knots = o["share_65536"], o["burst"], o["knots"]
        self.records_max, self.owner = o.get("records_max", 1 << 24), bytes.fromhex(o["owner"])
        self.tensors = sorted(o["tensors"], key=lambda t: t["name"].encode())

    def lam(self, s):
        if s >= self.steps:
            return 0
        for (s0, y0), (s1, y1) in zip(self.knots, self.knots[1:]):
            if s0 <= s < s1:
                return y0 + (y1 - y0) * (s - s0) // (s1 - s0)
        return self.knots[-1][1]

    def weight(self, lag):
        return (self.n0 << 32) // max(self.n0, lag)

    def coef(self, step, lag, e):
        return (self.lam(step) * self.weight(lag) + (1 << (93 - e))) >> (94 - e)

    def bounded(self, L, codes):
        if self.unit is not None:
            return L
        S = sum(v * v for v in codes if v != -128)
        limit = 33856 * (len(codes) + math.isqrt(36 * len(codes)))
        if 25 * S > limit:
            L = (L * math.isqrt((limit << 32) // (25 * S))) >> 16
        return L

    def share_limit(self, step):
        return (self.share * self.n0 * (min(step, self.steps) + self.burst) << 32) // 65536


# ---- SPEC 6: segments, with RFC 8032 Ed25519 in integers -----------------------------------------------------------

Q25519 = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D25519 = -121665 * pow(121666, -1, Q25519) % Q25519


def ed_add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % Q25519
    b = (p[1] + p[0]) * (q[1] + q[0]) % Q25519
    c, d = 2 * p[3] * q[3] * D25519 % Q25519, 2 * p[2] * q[2] % Q25519
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % Q25519, g * h % Q25519, f * g % Q25519, e * h % Q25519)


def ed_mul(s, p):
    q = (0, 1, 1, 0)
    while s:
        if s & 1:
            q = ed_add(q, p)
        p, s = ed_add(p, p), s >> 1
    return q


def ed_x(y, sign):
    x2 = (y * y - 1) * pow(D25519 * y * y + 1, -1, Q25519) % Q25519
    x = pow(x2, (Q25519 + 3) // 8, Q25519)
    if (x * x - x2) % Q25519:
        x = x * pow(2, (Q25519 - 1) // 4, Q25519) % Q25519
    if (x * x - x2) % Q25519:
        return None
    return Q25519 - x if x & 1 != sign else x


BASE_Y = 4 * pow(5, -1, Q25519) % Q25519
BASE = (ed_x(BASE_Y, 0), BASE_Y, 1, ed_x(BASE_Y, 0) * BASE_Y % Q25519)


def ed_bytes(p):
    z = pow(p[2], -1, Q25519)
    x, y = p[0] * z % Q25519, p[1] * z % Q25519
    return (y | (x & 1) << 255).to_bytes(32, "little")


def ed_point(b):
    y = int.from_bytes(b, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    x = ed_x(y, sign) if y < Q25519 else None
    return None if x is None else (x, y, 1, x * y % Q25519)


def ed_secret(seed):
    h = hashlib.sha512(seed).digest()
    s = int.from_bytes(h[:32], "little") & (1 << 254) - 8 | 1 << 254
    return s, h[32:]


def ed_public(seed):
    return ed_bytes(ed_mul(ed_secret(seed)[0], BASE))


def sha512_int(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def ed_sign(seed, message):
    s, prefix = ed_secret(seed)
    pub, r = ed_public(seed), sha512_int(prefix, message)
    R = ed_bytes(ed_mul(r, BASE))
    return R + ((r + sha512_int(R, pub, message) * s) % ORDER).to_bytes(32, "little")


def ed_verify(pub, message, sig):
    """Cofactorless; S < l; no small-order key or R."""
    s, a, r = int.from_bytes(sig[32:], "little"), ed_point(pub), ed_point(sig[:32])
    if s >= ORDER or a is None or r is None:
        return False
    neutral = ed_bytes((0, 1, 1, 0))
    if ed_bytes(ed_mul(8, a)) == neutral or ed_bytes(ed_mul(8, r)) == neutral:
        return False
    left = ed_bytes(ed_mul(s, BASE))
    return left == ed_bytes(ed_add(r, ed_mul(sha512_int(sig[:32], pub, message), a)))


HEAD = "<BBHQIIHH8s8s"


def signed_bytes(run_id, machine, pred, body):
    return b"onebyte/1 segment\0" + run_id + machine + pred + body


class Segment:
    """Parsed wire bytes; no judgement."""

    def __init__(self, machine, pred, wire):
        self.machine, self.pred, self.wire = machine, pred, wire
        (self.version, self.flags, self.count, self.first, self.step, self.lag, self.loss, self.r, self.prev,
         self.binding) = struct.unpack(HEAD, wire[:40])
        self.codes = list(struct.unpack(f"{len(wire) - 104}b", wire[40:-64]))
        self.body, self.sig = wire[:-64], wire[-64:]

    def id(self, run_id):
        return h256(signed_bytes(run_id, self.machine, self.pred, self.body))


def segment_valid(run_id, machine, pred, pred_end, pred_step, k, sync, records_max, wire):
    if not 105 <= len(wire) <= 40 + 1024 + 64:
        return False
    s = Segment(machine, pred, wire)
    return (s.version == 1 and s.flags == 0 and 1 <= s.count <= 1024 and len(wire) == 104 + s.count and s.lag >= s.count
            and s.first + s.count <= records_max and s.prev == pred[:8] and s.first == pred_end
            and (pred == ZERO) == (s.first == 0) and s.first % k == 0 and s.count % k == 0
            and not (sync and pred != ZERO and s.step < pred_step)
            and ed_verify(machine, signed_bytes(run_id, machine, pred, s.body), s.sig))


def make_segment(rules, seed, pred, first, codes, step, lag, loss=0, r=0, binding=bytes(8), version=1, flags=0, count=None,
                 prev=None):
    machine = ed_public(seed)
    body = struct.pack(HEAD, version, flags, len(codes) if count is None else count, first, step, lag, loss, r,
                       pred[:8] if prev is None else prev, binding) + struct.pack(f"{len(codes)}b", *codes)
    return Segment(machine, pred, body + ed_sign(seed, signed_bytes(rules.run_id, machine, pred, body)))


# ---- SPEC 3, 5, 7: state, what counts, frontier, digest ------------------------------------------------------------

def wrap(x, bits):
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def digest_vectors(run_id, tensor, shape):
    key, (m, n) = stream_key(run_id, ZERO), rows_cols(shape)

    def entries(domain, count):
        w = words(key, domain, tensor, 0, 2 * count)
        return [(w[2 * i] + (w[2 * i + 1] << 32)) % P for i in range(count)]
    return entries(DIGEST_U, m), entries(DIGEST_W, n)


def digest(rules, m):
    total = 0
    for t, tensor in enumerate(rules.tensors):
        rows, cols = rows_cols(tensor["shape"])
        u, w = digest_vectors(rules.run_id, t, tensor["shape"])
        total += sum(m[t][i * cols + j] * u[i] * w[j] for i in range(rows) for j in range(cols))
    return total % P


def state_hash(rules, m):
    return h256(*(v.to_bytes(t["bits"] // 8, "little", signed=True) for t, ms in zip(rules.tensors, m) for v in ms))


def feeds(segments):
    out = {}
    for s in segments:
        out.setdefault(s.machine, []).append(s)
    return out


def counting(rules, segments, cuts):
    """({segment: mask}, clock): record by record in feed order."""
    masks, clock = {}, 0
    for machine, feed in feeds(segments).items():
        so_far, cut = 0, cuts.get(machine, NONE)
        for s in feed:
            w, mask = rules.weight(s.lag), []
            for i, v in enumerate(s.codes):
                ok = v != -128 and s.first + i < cut and so_far + w <= rules.share_limit(s.step)
                so_far += w if ok else 0
                mask.append(int(ok))
            masks[s] = mask
        clock += so_far
    return masks, clock


def coefs(rules, s):
    L0 = [rules.coef(s.step, s.lag, t["e"]) for t in rules.tensors]
    return L0, [rules.bounded(L, s.codes) for L in L0]


def fold(rules, m, s, mask):
    """m (wrapped) and whether anything wrapped."""
    key, L, out, wrapped = stream_key(rules.run_id, s.machine), coefs(rules, s)[1], [], False
    for t, tensor in enumerate(rules.tensors):
        ms = list(m[t])
        for i, (v, ok) in enumerate(zip(s.codes, mask)):
            if ok and v:
                h = direction(rules.direction, key, t, tensor["shape"], s.first + i)
                ms = [x - v * L[t] * y for x, y in zip(ms, h)]
        out.append([wrap(x, tensor["bits"]) for x in ms])
        wrapped |= out[-1] != ms
    return out, wrapped


def frontier(rules, segments, cuts):
    f, by = b"", feeds(segments)
    for machine in sorted(set(by) | set(cuts)):
        feed, cut = by.get(machine, []), cuts.get(machine, NONE)
        if not feed and cut == NONE:
            continue
        end = feed[-1].first + feed[-1].count if feed else 0
        f += machine + struct.pack("<Q", end) + (feed[-1].id(rules.run_id) if feed else ZERO) + struct.pack("<Q", cut)
    return f


def before_round(segments, round_):
    out = []
    for feed in feeds(segments).values():
        for s in feed:
            if s.step >= round_:
                break
            out.append(s)
    return out


def binding(d, front):
    return h256(struct.pack("<Q", d), front)[:8]


def everything(rules, segments, cuts, m0):
    """What a run's entry in the file holds, but for manifest, machines and cuts."""
    masks, clock = counting(rules, segments, cuts)
    d0, m, wraps, rows = digest(rules, m0), m0, False, []
    for s in segments:
        before = m
        m, wrapped = fold(rules, m, s, masks[s])
        wraps |= wrapped
        delta = (digest(rules, m) - digest(rules, before)) % P
        L0, L = coefs(rules, s)
        rows.append({"machine": s.machine.hex(), "pred": s.pred.hex(), "wire": s.wire.hex(), "id": s.id(rules.run_id).hex(),
                     "weight": rules.weight(s.lag), "lam": rules.lam(s.step), "L0": L0, "L": L, "mask": masks[s],
                     "counted": [v if ok else 0 for v, ok in zip(s.codes, masks[s])], "digest_delta": f"{delta:016x}"})
    if wraps:
        for row in rows:
            row["digest_delta"] = None
    front, d = frontier(rules, segments, cuts), digest(rules, m)
    return {"run_id": rules.run_id.hex(), "m0": m0, "digest0": f"{d0:016x}", "state0": state_hash(rules, m0).hex(),
            "segments": rows, "wraps": wraps, "m": m, "digest": f"{d:016x}", "state": state_hash(rules, m).hex(),
            "clock": clock, "step": clock // (rules.n0 << 32), "frontier": front.hex(), "frontier_digest": h256(front).hex(),
            "binding": binding(d, front).hex(),
            "u": [str(x) for x in digest_vectors(rules.run_id, 0, rules.tensors[0]["shape"])[0][:2]]}


def rounds(rules, segments, cuts, m0):
    out = []
    for r in range(max(s.step for s in segments) + 2):
        held = before_round(segments, r)
        masks, m = counting(rules, held, cuts)[0], m0
        for s in held:
            m = fold(rules, m, s, masks[s])[0]
        front, d = frontier(rules, held, cuts), digest(rules, m)
        out.append({"round": r, "frontier": front.hex(), "frontier_digest": h256(front).hex(), "digest": f"{d:016x}",
                    "binding": binding(d, front).hex()})
    return out


# ---- checking a file -----------------------------------------------------------------------------------------------

def check_chain(rules, segments):
    ends = {}
    for s in segments:
        pred, end, step = ends.get(s.machine, (ZERO, 0, 0))
        if not segment_valid(rules.run_id, s.machine, pred, end, step, rules.k, rules.sync, rules.records_max, s.wire):
            return False
        ends[s.machine] = (s.id(rules.run_id), end + s.count, s.step)
    return True


def cuts_of(front):
    cuts = {}
    for i in range(0, len(front), 80):
        cut = struct.unpack("<Q", front[i + 72:i + 80])[0]
        if cut != NONE:
            cuts[front[i:i + 32]] = cut
    return cuts


def check_run(run):
    """Names of the fields that differ."""
    rules = Rules(run["manifest"])
    segments = [Segment(bytes.fromhex(s["machine"]), bytes.fromhex(s["pred"]), bytes.fromhex(s["wire"])) for s in run["segments"]]
    bad = [] if check_chain(rules, segments) else ["chain"]
    cuts = cuts_of(bytes.fromhex(run["frontier"]))
    got = everything(rules, segments, cuts, run["m0"])
    bad += [k for k in got if k in run and k not in ("segments", "m") and got[k] != run[k]]
    if [x[:len(y)] for x, y in zip(got["m"], run["m"])] != run["m"]:     # the shared file has the first entries only
        bad.append("m")
    for i, (x, y) in enumerate(zip(got["segments"], run["segments"])):
        bad += [f"segments[{i}].{k}" for k in x if k in y and x[k] != y[k]]
    if "rounds" in run and run["rounds"] != rounds(rules, segments, cuts, run["m0"]):
        bad.append("rounds")
    return bad + check_arith1(run, rules)


def check_arith1(run, rules):
    """The fields that only the shared file has: its key is the first machine's, its streams those of tensor 0, seq 0."""
    if "signs_a" not in run:
        return []
    found = {"key": None}
    for s in run["segments"]:
        key = stream_key(rules.run_id, bytes.fromhex(s["machine"]))
        if [f"{x:08x}" for x in key] == run["key"]:
            found["key"] = key
    if not found["key"]:
        return ["key"]
    want, bad = {"signs_a": lambda t, q: signs(found["key"], A, t, q, 8), "signs_dense": lambda t, q: signs(found["key"], DENSE, t, q, 8),
                 "gauss": lambda t, q: gauss(found["key"], t, q, 8)}, []
    for name, f in want.items():
        if not any(f(t, q) == run[name] for t in range(len(rules.tensors)) for q in range(16)):
            bad.append(name)
    return bad


def check(path):
    with open(path) as f:
        data = json.load(f)
    bad = []
    for i, run in enumerate(data if isinstance(data, list) else data["runs"]):
        bad += [f"{path}: run {i}: {b}" for b in check_run(run)]
    if isinstance(data, dict):
        for kind in ("refused", "accepted"):
            for c in data[kind]:
                if segment_valid(*(bytes.fromhex(c[k]) for k in ("run_id", "machine", "pred")), c["pred_end"], c["pred_step"], c["k"],
                                 c["sync"], c["records_max"], bytes.fromhex(c["wire"])) != (kind == "accepted"):
                    bad.append(f"{path}: {kind}: {c['why']}")
        for c in data["philox"]:
            if philox([int(x, 16) for x in c["ctr"]], [int(x, 16) for x in c["key"]]) != [int(x, 16) for x in c["out"]]:
                bad.append(f"{path}: philox")
    return bad


# ---- SPEC 6: codes -------------------------------------------------------------------------------------------------

def f16_bits(x):
    return struct.unpack("<H", struct.pack("<e", min(x, 65504.0)))[0]


def seal(history, g, unit):
    """(r, codes, margin): margin = distance of the nearest 32 g / r to a rounding boundary.  None = non-finite."""
    finite = [x for x in g if x is not None]
    over = history[-256:] + finite
    mean_square = math.fsum(x * x for x in over) / len(over) if over else 0.0
    bits = f16_bits(unit / (1 << 24) if unit else math.sqrt(mean_square))
    r = unit / (1 << 24) if unit else struct.unpack("<e", struct.pack("<H", bits))[0]
    codes, margin = [], 1.0
    for x in g:
        if x is None:
            codes.append(-128)
            continue
        y = 32 * x / r if r else 0.0
        codes.append(max(-127, min(127, int(math.copysign(math.floor(abs(y) + 0.5), y)))))
        if abs(y) < 127:
            margin = min(margin, abs(abs(y) % 1 - 0.5))
    return bits, codes, margin


# ---- making arith.json ---------------------------------------------------------------------------------------------

def seed_of(name):
    return hashlib.sha256(b"onebyte test vector " + name.encode()).digest()


TENSORS = [("model.b", [5, 7], 32, 27), ("model.a.weight", [33, 20], 32, 26), ("model.A", [3, 2, 2, 2], 32, 25), ("norm", [9], 64, 57),
           ("scale", [], 64, 55), ("model.a", [1, 40], 32, 24), ("wide", [2, 34], 64, 50), ("one", [1, 1], 32, 26)]


def manifest(direction, steps, n0, knots, share=65536, burst=4, tensors=TENSORS, **more):
    return json.dumps({"arith": 1, "direction": direction, "n0": n0, "steps": steps, "share_65536": share, "burst": burst,
                       "knots": knots, "owner": ed_public(seed_of("owner")).hex(),
                       "tensors": [dict(zip(("name", "shape", "bits", "e"), t)) for t in tensors], **more})


def random_m0(rng, rules):
    return [[rng.randrange(-(1 << (t["bits"] - 5)), 1 << (t["bits"] - 5)) if t["bits"] == 32 else rng.randrange(-(1 << 55), 1 << 55)
             for _ in range(math.prod(t["shape"]))] for t in rules.tensors]


def random_codes(rng, n, loud=False):
    if loud:
        return [rng.choice([-127, 127, 126, -120]) for _ in range(n)]
    return [-128 if rng.random() < 0.1 else max(-127, min(127, round(rng.gauss(0, 32)))) for _ in range(n)]


def make_run(rng, text, plan, cuts=None, late=24):
    """plan: {machine name: [(count, step, loud)]}; lag is up to `late` more than count."""
    rules, segments = Rules(text), []
    for name, parts in plan.items():
        pred, first = ZERO, 0
        for count, step, loud in parts:
            s = make_segment(rules, seed_of(name), pred, first, random_codes(rng, count, loud), step, count + rng.randrange(late),
                             rng.randrange(1 << 16), rng.randrange(1 << 16), rng.randbytes(8))
            segments.append(s)
            pred, first = s.id(rules.run_id), first + count
    cuts = {ed_public(seed_of(k)): v for k, v in (cuts or {}).items()}
    assert check_chain(rules, segments) and all(s.first < cuts.get(s.machine, NONE) for s in segments)
    m0 = random_m0(rng, rules)
    out = {"manifest": text, "machines": {ed_public(seed_of(k)).hex(): seed_of(k).hex() for k in plan},
           "cuts": {k.hex(): v for k, v in cuts.items()}}
    out |= everything(rules, segments, cuts, m0)
    out["lambda"] = [[s, rules.lam(s)] for s in sorted({0, 1, 2, 3, 7, 9, 10, 11, 33, 49, 50, 51, rules.steps - 1, rules.steps, 2**32 - 1})]
    out["streams"] = []
    for name in plan:
        machine = ed_public(seed_of(name))
        key = stream_key(rules.run_id, machine)
        for domain in (A, B, DENSE, GAUSS, DATA):
            seq, t = rng.choice([0, 5, 2**32 - 1, 2**32 + 7, 2**40]), 0 if domain == DATA else rng.randrange(len(rules.tensors))
            out["streams"].append({"machine": machine.hex(), "seq": seq, "domain": domain, "tensor": t, "words": words(key, domain, t, seq, 8)})
    if rules.sync:
        out["rounds"] = rounds(rules, segments, cuts, m0)
    return out


def make_runs(rng):
    y = 1 << 42
    knots = [[0, 3 * y], [10, 9 * y + 5], [50, 4 * y - 1], [101, y // 3]]
    # Void codes, loud segments, a share that throttles the second machine, a cut inside a segment.
    one = make_run(rng, manifest("rank1", 100, 16, knots, share=32768, burst=2),
                   {"ada": [(3, 0, False), (12, 1, True), (1, 5, True), (40, 11, False)], "bob": [(16, 0, True), (20, 0, False), (9, 1, False), (30, 60, False)],
                    "cyd": [(7, 99, False), (5, 100, False)]}, cuts={"ada": 21, "eve": 0})
    # One-sided groups of four; only part of a throttled segment counts.
    two = make_run(rng, manifest("rademacher", 80, 24, knots, share=20000, burst=1, K=4, sides=1, unit=None),
                   {"ada": [(4, 0, False), (24, 1, False), (12, 3, True)], "bob": [(8, 0, True), (4, 3, True), (64, 4, False)]}, cuts={"bob": 50})
    # A fixed unit: no energy bound.
    three = make_run(rng, manifest("gaussian", 64, 8, [[0, y], [64, 0]], share=65536, burst=8, unit=1 << 22),
                     {"ada": [(5, 0, True), (11, 63, False)], "bob": [(8, 2, False), (3, 1, True), (2, 64, False)]})
    # Synchronous rounds, seven directions per example.
    four = make_run(rng, manifest("rank1", 200, 56, knots, share=65536, burst=4, K=7, sides=1, pace="sync"),
                    {"ada": [(7, 0, False), (14, 1, False), (7, 2, True), (7, 4, False)], "bob": [(7, 0, False), (7, 3, False), (21, 3, False)],
                     "cyd": [(7, 2, False)]}, cuts={"ada": 30}, late=120)
    # The largest coefficients: everything wraps, 128-bit products everywhere, knots that fall by almost 2^62.
    top = (1 << 62) - 1
    five = make_run(rng, manifest("rank1", 2**32 - 1, 1 << 20, [[0, 0], [1, top], [2**31 + 7, top // 7], [2**32 - 2, 3]], burst=1 << 20,
                                  tensors=[("x", [4, 6], 32, 61), ("y", [4, 6], 64, 61), ("v", [3], 64, 0), ("w", [2, 2], 32, 40)]),
                    {"ada": [(200, 0, True), (3, 1, False), (200, 2, True), (6, 2**31, False)], "bob": [(6, 2**31 + 9, True), (30, 2**32 - 3, True)]}, late=2)
    assert five["wraps"] and not any(r["wraps"] for r in (one, two, three, four))
    assert any(s["L"] != s["L0"] for s in one["segments"]) and all(s["L"] == s["L0"] for s in three["segments"])
    for r in (one, two):
        assert any(0 < sum(s["mask"]) < sum(v != 0 for v in s["mask"]) + len(s["mask"]) for s in r["segments"])
    return [one, two, three, four, five]


def torsion_key():
    """A key of order 8: refused by libsodium."""
    return bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")


def make_cases():
    """(refused, accepted): single segments against one rule each."""
    text = manifest("rank1", 100, 16, [[0, 1]], tensors=[("x", [2, 2], 32, 24)], K=2, sides=1, pace="sync", records_max=20)
    rules, seed, out, good = Rules(text), seed_of("ada"), [], []
    run, me = rules.run_id, ed_public(seed_of("ada"))
    first = make_segment(rules, seed, ZERO, 0, [1, 2, 3, 4], 5, 4)
    pid = first.id(run)

    def add(why, wire, pred=pid, end=4, step=5, sync=True, machine=me, to=out, k=2, records_max=20):
        to.append({"why": why, "run_id": run.hex(), "machine": machine.hex(), "pred": pred.hex(), "pred_end": end, "pred_step": step,
                   "k": k, "sync": sync, "records_max": records_max, "n0": rules.n0, "wire": wire.hex()})

    def seg(codes=(5, 6), step=5, lag=9, pred=pid, first_seq=4, **more):
        return make_segment(rules, seed, pred, first_seq, list(codes), step, lag, **more).wire

    ok = seg()
    add("plain successor", ok, to=good)
    add("first segment", first.wire, pred=ZERO, end=0, step=0, to=good)
    add("lag equals count", seg(lag=2), to=good)
    add("ends exactly at records_max", seg(codes=[1] * 16, lag=16), to=good)
    add("step lower than the predecessor's, async", seg(step=4), sync=False, to=good)
    add("any loss, r, binding", seg(loss=0x7e01, r=0xffff, binding=b"\xff" * 8), to=good)
    add("1024 records, all void", seg(codes=[-128] * 1024, lag=1024), records_max=1 << 24, to=good)
    add("version 0", seg(version=0))
    add("version 2", seg(version=2))
    add("flags 1", seg(flags=1))
    add("count 0", seg(codes=(), count=0))
    add("count one more than codes", seg(count=3))
    add("count one less than codes", seg(codes=(5, 6, 7), count=2))
    add("1026 records", seg(codes=[1] * 1026, lag=1026), records_max=1 << 24)
    add("one byte too many", ok + b"\0")
    add("one byte too few", ok[:-1])
    add("empty", b"")
    add("lag below count", seg(lag=1))
    add("beyond records_max", seg(codes=[1] * 18, lag=18))
    add("prev is not the predecessor's", seg(prev=bytes(8)))
    add("prev of another", seg(prev=b"\1" + pid[1:8]))
    add("signature names another predecessor with the same first 8 bytes", seg(pred=pid[:8] + bytes(24)))
    add("a gap", seg(first_seq=6))
    add("an overlap", seg(first_seq=2))
    add("first_seq 0 after a predecessor", seg(first_seq=0))
    add("not first, but without predecessor", seg(pred=ZERO), pred=ZERO, end=4, step=5)
    add("K does not divide count", seg(codes=(1, 2, 3)))
    add("K does not divide first_seq", seg(first_seq=5), end=5)
    add("step lower than the predecessor's, sync", seg(step=4))
    for at in (0, 31, 32, 63):
        bad = bytearray(ok)
        bad[len(ok) - 64 + at] ^= 1
        add(f"signature: bit 0 of byte {at} flipped", bytes(bad))
    big = int.from_bytes(ok[-32:], "little") + ORDER
    add("signature: S + l", ok[:-32] + big.to_bytes(32, "little"))
    add("signature: of another machine", ok, machine=ed_public(seed_of("bob")))
    small = torsion_key()
    assert ed_bytes(ed_mul(8, ed_point(small))) == ed_bytes((0, 1, 1, 0))
    add("signature: small-order key, S = 0", small_order(rules, small, pid), machine=small)
    for at in (4, 12, 16, 20, 22, 32, 40):
        bad = bytearray(ok)
        bad[at] ^= 0x80
        add(f"signature: bit 7 of wire byte {at} flipped", bytes(bad))
    return out, good


def small_order(rules, key, pred):
    """A segment whose cofactorless equation holds for a key of small order: R = -hA, S = 0, by trying lags."""
    neutral = (0, 1, 1, 0)
    for lag in range(2, 200):
        body = struct.pack(HEAD, 1, 0, 2, 4, 5, lag, 0, 0, pred[:8], bytes(8)) + bytes([5, 6])
        R = ed_bytes(neutral)
        if sha512_int(R, key, signed_bytes(rules.run_id, key, pred, body)) % 8 == 0:
            return body + R + bytes(32)
    raise AssertionError("no lag fits")


def make_codec(rng):
    cases = []
    for n, n_history, scale, unit, void in ((1, 0, 1.0, 0, 0), (7, 0, 3e-3, 0, 0), (16, 5, 4.7, 0, 2), (30, 300, 0.2, 0, 1), (64, 256, 1e-4, 0, 3),
                                            (5, 0, 2.0, 1 << 24, 0), (12, 9, 0.01, 1 << 17, 1), (9, 0, 1e5, 0, 0), (3, 4, 0.0, 0, 0), (4, 0, 1.0, 0, 4)):
        while True:
            history, g = [rng.gauss(0, 1) * scale for _ in range(n_history)], [rng.gauss(0, 1) * scale for _ in range(n)]
            if n > 6 and scale:
                g[0], g[1] = 50 * scale, -0.0
            for i in range(void):
                g[i * (n // max(1, void))] = None
            r, codes, margin = seal(history, g, unit)
            if margin > 1e-6 and stable(history, g, unit):
                break
        cases.append({"history": history, "g": g, "unit": unit, "r": r, "codes": codes})
    return cases


def stable(history, g, unit):
    """Scaling by 1e-9 changes neither r nor codes: no summation order can."""
    a = seal(history, g, unit)[:2]
    return all(seal([x * f for x in history], [None if x is None else x * f for x in g], unit)[:2] == a for f in (1 - 1e-9, 1 + 1e-9))


def make_data(rng):
    out = []
    for n in (1, 2, 3, 1000, 2**33 + 5):
        for k, seq in ((1, 0), (1, 12345), (7, 6), (7, 7), (4, 2**36)):
            key = (rng.getrandbits(32), rng.getrandbits(32))
            out.append({"key": list(key), "seq": seq, "K": k, "N": n, "index": example_index(key, seq, k, n)})
    return out


PHILOX = [("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
          ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
          ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1")]


def make_file():
    rng = random.Random(20261125)
    refused, accepted = make_cases()
    rules, machine = Rules(manifest("rank1", 100, 16, [[0, 1]])), ed_public(seed_of("ada"))
    message = b"onebyte/1 retract\0" + rules.run_id + machine + struct.pack("<Q", 21)
    return {"runs": make_runs(rng), "refused": refused, "accepted": accepted, "codec": make_codec(rng), "data": make_data(rng),
            "philox": [dict(zip(("ctr", "key", "out"), (x.split() for x in row))) for row in PHILOX],
            "retract": {"run_id": rules.run_id.hex(), "owner": rules.owner.hex(), "owner_seed": seed_of("owner").hex(), "machine": machine.hex(),
                        "seq": 21, "message": message.hex(), "sig": ed_sign(seed_of("owner"), message).hex()}}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    paths = sys.argv[2:]
    if sys.argv[1:2] != ["--check"]:
        shared = os.path.join(here, "..", "..", "..", "shared", "vectors", "arith1.json")
        if os.path.exists(shared) and check(shared):
            sys.exit("\n".join(check(shared)))
        paths = [os.path.join(here, "arith.json")]
        with open(paths[0], "w") as f:
            f.write(",\n".join(json.dumps(make_file(), separators=(",", ":")).split(",{")).replace(",\n", ",\n{") + "\n")
    bad = [b for p in paths for b in check(p)]
    print("\n".join(bad) if bad else "all equal: " + " ".join(os.path.basename(p) for p in paths))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
