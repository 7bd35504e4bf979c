"""Functions of float32 streams, y[i] = f(x[i]), written for the vectors of each CPU level.

The formulas are those of ops/vector_math.py where the CPU has nothing better; errors are as there. AVX2 refines
estimates of 1 / sqrt, and looks 2^(i/8) up in a register for GELU. AVX-512 looks 2^(i/32) up in two registers and scales
by powers of two in one instruction, takes logarithms apart with getexp and getmant, and refines estimates of 1 / sqrt.
Operations are emitted for several vectors in turn: the dependent chains are longer than what a CPU keeps in flight of a
loop over one vector. Polynomials are cut into short chains where it still waits for them.
"""
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

UNROLL = 4                                                       # vectors in turn
UNROLL_WIDE = {"sqrt": 2, "rsqrt": 2, "gelu": 2}                 # on AVX-512
LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4                  # few bits: the product with a whole number is exact
MAGIC = 12582912.0                                               # 1.5 * 2^23: adding it rounds to a whole number
EXP_32 = (1.00001466, 0.500004514)                                # (exp(r) - 1) / r, |r| <= ln 2 / 64
EXP_8 = (0.99999997, 0.50005213, 0.16675847)                      # (exp(r) - 1) / r, |r| <= ln 2 / 16
EXP = (1.0, 1.00000005, 0.49999127, 0.16666356, 0.04190044, 0.00837958)              # exp(r), |r| <= ln 2 / 2
TANH_TOP = 9.02
TANH_P = (9.9999998515e-01, 1.3387061814e-01, 3.5026005864e-03, 2.0717458251e-05, 1.3490457254e-08)
TANH_Q = (1.0, 4.6720382016e-01, 2.5904075694e-02, 3.2968085512e-04, 7.8352343966e-07)
GELU_P = (4.999998243e-01, 3.606150652e-01, 1.187539928e-01, 1.686366000e-02)
GELU_Q = (1.0, 1.519097125e+00, 9.497123423e-01, 2.974572379e-01, 4.227637001e-02)
# the same for AVX2: closer near 0, where 1 - the tail is rounded once more
GELU_8_P = (4.999998930e-01, 3.548179552e-01, 1.153695872e-01, 1.604861768e-02)
GELU_8_Q = (1.0, 1.507509137e+00, 9.336534833e-01, 2.889302155e-01, 4.023477248e-02)
GELU_TOP = math.sqrt(2 * math.log(2) * 127)                       # exp(-t^2 / 2) is 2^-127 there: 0
GELU_A, GELU_B = 1.5957691216057308, 1.5957691216057308 * 0.044715
# (log(1 + f) - f) / f^2 on [sqrt(1/2) - 1, sqrt(2) - 1], and on [-1/4, 1/2]
LOG = (-0.5, 0.33333858, -0.25001747, 0.19965396, -0.16565635, 0.14876985, -0.14350201, 0.08917791)
LOG_512 = (-0.5, 0.33333449, -0.25000099, 0.19990872, -0.16647206, 0.1447802, -0.13161934, 0.10466889, -0.04511105)
SMALLEST_NORMAL, TWO_23, SQRT_HALF_BITS = 2.0 ** -126, 8388608.0, 0x3F3504F3
SMALLEST_NORMAL_BITS, INFINITY_BITS = 0x00800000, 0x7F800000


class Lockstep:
    """A Vec on lists of vectors: every operation is emitted for all of them before the next one."""

    def __init__(self, v: Any, count: int) -> None:
        self.v, self.count, self.wide = v, count, v.x86 and v.lanes == 16

    def __getattr__(self, name: str) -> Callable[..., list[Any]]:
        method = getattr(self.v, name)
        return lambda *args: [method(*(a[k] if isinstance(a, list) else a for a in args)) for k in range(self.count)]

    def c(self, value: float) -> Any:
        """A float constant in all lanes."""
        return self.v.const(self.v.f32, float(np.float32(value)))

    def polynomial(self, x: list[Any], coefficients: tuple[float, ...]) -> list[Any]:
        """By Horner's rule, lowest coefficient first."""
        made: Any = self.c(coefficients[-1])
        for a in coefficients[-2::-1]:
            made = self.fma(made, x, self.c(a))
        return made

    def short(self, x: list[Any], coefficients: tuple[float, ...]) -> list[Any]:
        """The polynomial by Estrin's scheme: two multiplications more, and a chain of the logarithm of the length."""
        terms: list[Any] = [self.c(a) for a in coefficients]
        while len(terms) > 1:
            pairs = [self.fma(b, x, a) for a, b in zip(terms[::2], terms[1::2])]
            terms = pairs + terms[len(terms) & ~1:]
            x = self.fmul(x, x) if len(terms) > 1 else x
        return terms[0]

    def limit(self, x: list[Any], low: float, high: float) -> list[Any]:
        """x within [low, high]; NaN stays NaN."""
        return self.fmin(self.c(high), self.fmax(self.c(low), x))

    def bits(self, x: list[Any]) -> list[Any]:
        return self.bitcast(x, self.v.i32)

    def float(self, x: list[Any]) -> list[Any]:
        return self.bitcast(x, self.v.f32)

    @property
    def estimates(self) -> bool:
        """Whether there are estimates of 12 bits (`estimate`), and fused multiply-add to refine them."""
        return self.v.x86 and self.v.lanes == 8

    def estimate(self, name: str, x: list[Any]) -> list[Any]:
        """"rcp" or "rsqrt" of AVX: 12 bits of the reciprocal (of the root); denormals are taken for 0."""
        return [self.v.call(f"llvm.x86.avx.{name}.ps.256", self.v.f32, [a]) for a in x]

    def avx512(self, name: str, *args: Any) -> list[Any]:
        """An AVX-512 instruction with a mask and (where it rounds) a rounding mode, both left at their defaults."""
        v, i = self.v, self.v.type
        more = {"mask.getexp": ["zero", "all", "mode"], "mask.getmant": ["zero", "all", "mode"],
                "mask.scalef": ["zero", "all", "mode"], "rsqrt14": ["zero", "all"]}.get(name, [])
        values = {"zero": v.zero(v.f32), "all": v.const(i("i16"), -1), "mode": v.const(i("i32"), 4)}
        given = [*args, *(values[k] for k in more)]
        return [v.call(f"llvm.x86.avx512.{name}.ps.512", v.f32, [a[k] if isinstance(a, list) else a for a in given])
                for k in range(self.count)]


# ---- exponentials ------------------------------------------------------------------------------------

EXP_LEAST = -125.5 * math.log(2)       # below, 2^n of the other levels is no normal number


def _power_32(m: Lockstep, k: list[Any], shift: int = -1) -> list[Any]:
    """2^(i/32), i the low five bits of k; with a shift, i << shift less as an integer."""
    table = np.array([2 ** (i / 32) for i in range(32)], np.float32)
    if shift >= 0:
        table = (table.view(np.int32) - (np.arange(32, dtype=np.int32) << shift)).view(np.float32)
    low, high = (m.v.const(m.v.f32, [float(a) for a in table[h:h + 16]]) for h in (0, 16))
    return m.avx512("vpermi2var", low, m.bits(k), high)


def _exponential(m: Lockstep, x: list[Any], a: float = 1.0, plus: float = 0.0, exact: bool = False
                 ) -> list[Any]:
    """exp(a * x) + plus, |a * x| <= 88; on AVX-512 any up to 2^15. exact: ln 2 in two parts.

    n = a * x * log2(e) is rounded, to 1/32 where there is the table; then r = x - n * ln 2 / a.
    """
    magic = MAGIC / 32 if m.wide else MAGIC + 127
    k = m.fma(x, m.c(a * LOG2E), m.c(magic))
    n = m.fsub(k, m.c(magic))
    if exact:
        r = m.fma(n, m.c(-LN2_LOW / a), m.fma(n, m.c(-LN2_HIGH / a), x))
    else:
        r = m.fma(n, m.c(-LN2 / a), x)
    if m.wide:
        power = _power_32(m, k)
        p = m.fmul(r, m.fma(r, m.c(EXP_32[1] * a * a), m.c(EXP_32[0] * a)))
        e = m.avx512("mask.scalef", m.fma(p, power, power), n)
        return m.fadd(e, m.c(plus)) if plus else e
    p, power = m.polynomial(r, tuple(c * a ** i for i, c in enumerate(EXP))), m.float(m.shl(m.bits(k), 23))
    return m.fma(p, power, m.c(plus)) if plus else m.fmul(p, power)


def exp(m: Lockstep, x: list[Any]) -> list[Any]:
    """With ln 2 in two parts; 0 instead of denormals, and slightly before, on every CPU."""
    x = m.limit(x, -104 if m.wide else -87.3, 89)
    magic = MAGIC / 32 if m.wide else MAGIC + 126
    k = m.fma(x, m.c(LOG2E), m.c(magic))
    n = m.fsub(k, m.c(magic))
    r = m.fma(n, m.c(-LN2_LOW), m.fma(n, m.c(-LN2_HIGH), x))
    if m.wide:
        power = _power_32(m, k)
        p = m.fmul(r, m.fma(r, m.c(EXP_32[1]), m.c(EXP_32[0])))
        y = m.avx512("mask.scalef", m.fma(p, power, power), n)
        return m.select(m.fcmp("<", x, m.c(EXP_LEAST)), m.c(0), y)
    p = m.polynomial(r, tuple(2 * c for c in EXP))
    return m.fmul(p, m.float(m.shl(m.bits(k), 23)))                         # 2 exp(r) * 2^(n - 1)


def exp_nonpositive(m: Lockstep, x: list[Any]) -> list[Any]:
    """exp(x) for x <= 0 (or NaN); 0 instead of denormals."""
    if not m.wide:
        return _exponential(m, m.fmax(m.c(-88), x))                         # 2^-127 has the bits of 0
    return m.select(m.fcmp("<", x, m.c(EXP_LEAST)), m.c(0), _exponential(m, m.fmax(m.c(-104), x)))


def _sigmoid(m: Lockstep, share: Any, x: list[Any], exact: bool) -> list[Any]:
    """share / (1 + exp(-x))."""
    top = 89 if m.wide else 88
    return m.fdiv(share, _exponential(m, m.limit(x, -top, top), -1.0, plus=1.0, exact=exact))


def logistic(m: Lockstep, x: list[Any]) -> list[Any]:
    return _sigmoid(m, m.c(1), x, exact=m.wide)


def swish(m: Lockstep, x: list[Any]) -> list[Any]:
    """The product, as LOGISTIC and MUL give it."""
    return m.fmul(x, logistic(m, x))


def gelu_tanh(m: Lockstep, x: list[Any]) -> list[Any]:
    return _sigmoid(m, x, m.fmul(x, m.fma(m.fmul(x, x), m.c(GELU_B), m.c(GELU_A))), exact=False)


def gelu(m: Lockstep, x: list[Any]) -> list[Any]:
    """max(x, 0) - |x| * the smaller tail of the normal distribution, which is exp(-x^2 / 2) * P / Q."""
    if m.wide:
        return _gelu_16(m, x)
    t = m.fmin(m.c(GELU_TOP if m.estimates else 13.26), m.fabs(x))
    if m.estimates:
        return _gelu_8(m, x, t)
    e = _exponential(m, m.fmul(t, t), -0.5)
    tail = m.fmul(e, m.fdiv(m.polynomial(t, GELU_P), m.polynomial(t, GELU_Q)))
    distance = m.fmax(m.fneg(x), t)                                         # |x|, limited where x > 0
    return m.fma(m.fneg(distance), tail, m.fmax(m.c(0), x))


def _gelu_16(m: Lockstep, x: list[Any]) -> list[Any]:
    """The same with as little as can be for the pipes that multiply: maxima and 2^n are integers, Q begins with t^4, and the
    exponential is a square plus a number (times a factor that is in P)."""
    linear, square = EXP_32
    t = m.float(m.min(m.bits(m.fabs(x)), int(np.float32(GELU_TOP).view(np.int32))))
    z = m.fmul(t, t)
    k = m.fma(z, m.c(-0.5 * LOG2E), m.c(MAGIC / 32))
    r = m.fma(m.fsub(k, m.c(MAGIC / 32)), m.c(2 * LN2), z)
    power = m.float(m.add(m.bits(_power_32(m, k, 18)), m.shl(m.bits(k), 18)))
    s = m.fsub(r, m.c(linear / square))                                     # exp(-r / 2) = square / 4 * (s^2 + ...)
    e = m.fmul(power, m.fma(s, s, m.c(4 / square - (linear / square) ** 2)))
    q = m.fadd(t, m.c(GELU_Q[3] / GELU_Q[4]))
    for a in GELU_Q[2::-1]:
        q = m.fma(q, t, m.c(a / GELU_Q[4]))
    tail = m.fmul(e, m.fdiv(m.polynomial(t, tuple(a * square / 4 / GELU_Q[4] for a in GELU_P)), q))
    distance = m.float(m.max(m.bits(m.fneg(x)), m.bits(t)))                 # |x|, limited where x > 0
    return m.fma(m.fneg(distance), tail, m.float(m.max(m.bits(x), 0)))


def _gelu_8(m: Lockstep, x: list[Any], t: list[Any]) -> list[Any]:
    """x times the tail, or what it leaves of 1; in short chains, with 2^(i/8) from a register, i the low bits of k."""
    z = m.fmul(t, t)
    k = m.fma(z, m.c(-0.5 * LOG2E), m.c(MAGIC / 8))
    r = m.fma(m.fsub(k, m.c(MAGIC / 8)), m.c(2 * LN2), z)
    table = m.v.const(m.v.i32, [int(np.float32(2 ** (i / 8)).view(np.int32)) - (i << 20) for i in range(8)])
    power = [m.v.call("llvm.x86.avx2.permd", m.v.i32, [table, one]) for one in m.bits(k)]
    power = m.float(m.add(power, m.shl(m.bits(k), 20)))                     # i << 20 is taken off the table
    one, two, three = (c * (-0.5) ** i for i, c in enumerate(EXP_8, 1))
    e = m.fma(m.fmul(power, r), m.fma(m.fma(r, m.c(three), m.c(two)), r, m.c(one)), power)

    def pair(c: tuple[float, ...], i: int) -> list[Any]:
        return m.fma(t, m.c(c[i + 1]), m.c(c[i]))
    p = m.fma(pair(GELU_8_P, 2), z, pair(GELU_8_P, 0))
    q = m.fma(m.fma(z, m.c(GELU_8_Q[4]), pair(GELU_8_Q, 2)), z, pair(GELU_8_Q, 0))
    tail = m.fdiv(m.fmul(e, p), q)
    return m.fmul(x, m.select(m.icmp("<", m.bits(x), 0), tail, m.fsub(m.c(1), tail)))


def tanh(m: Lockstep, x: list[Any]) -> list[Any]:
    x = m.limit(x, -TANH_TOP, TANH_TOP)
    z = m.fmul(x, x)
    return m.fdiv(m.fmul(x, m.polynomial(z, TANH_P)), m.polynomial(z, TANH_Q))


# ---- logarithm ---------------------------------------------------------------------------------------

def log(m: Lockstep, x: list[Any]) -> list[Any]:
    """Exponent and mantissa 1 + f; log(0) = -inf, of negative numbers NaN."""
    if m.wide:
        interval = m.v.const(m.v.type("i32"), 11)                           # [3/4, 3/2), NaN if negative
        mantissa = m.avx512("mask.getmant", x, interval)
        n = m.fsub(m.avx512("mask.getexp", x), m.avx512("mask.getexp", mantissa))
        f = m.fsub(mantissa, m.c(1))
        return m.fma(n, m.c(LN2), m.fma(m.polynomial(f, LOG_512), m.fmul(f, f), f))
    if m.estimates:
        return _usual(m, x, lambda: _log_normal(m, x), lambda: _log_any(m, x))
    return _log_any(m, x)


def _log_normal(m: Lockstep, x: list[Any]) -> list[Any]:
    """Of normal numbers; NaN of negative ones."""
    return m.float(m.or_(m.bits(_log_of_bits(m, m.bits(x), None)), m.ashr(m.bits(x), 31)))


def _log_any(m: Lockstep, x: list[Any]) -> list[Any]:
    small = m.fcmp("<", x, m.c(SMALLEST_NORMAL))
    y = _log_of_bits(m, m.bits(m.select(small, m.fmul(x, m.c(TWO_23)), x)), small)
    y = m.select(m.fcmp("<", x, m.c(np.inf)), y, x)                         # inf, NaN
    y = m.select(m.fcmp("==", x, m.c(0)), m.c(-np.inf), y)
    return m.select(m.fcmp("<", x, m.c(0)), m.c(np.nan), y)


def _log_of_bits(m: Lockstep, bits: list[Any], small: list[Any] | None) -> list[Any]:
    """Of a positive normal number; small: those that were multiplied with 2^23."""
    e = m.ashr(m.sub(bits, SQRT_HALF_BITS), 23)
    f = m.fsub(m.float(m.sub(bits, m.shl(e, 23))), m.c(1))
    n = m.to_float(e)
    if small is not None:
        n = m.fsub(n, m.select(small, m.c(23), m.c(0)))
    return m.fma(n, m.c(LN2), m.fma(m.short(f, LOG), m.fmul(f, f), f))


# ---- roots and the rest --------------------------------------------------------------------------------

def rsqrt(m: Lockstep, x: list[Any]) -> list[Any]:
    """An estimate y, and a step of Newton's (of 14 bits) or Halley's (of 12 bits) method."""
    if m.wide:
        y = m.avx512("rsqrt14", x)
        better = m.fma(_half(m, y), m.fma(m.fneg(m.fmul(x, y)), y, m.c(1)), y)
        return m.select(m.fcmp("uno", better, better), y, better)           # of 0 and inf

    def divided() -> list[Any]:
        return m.fdiv(m.c(1), m.sqrt(x))
    if not m.estimates:
        return divided()

    def estimated() -> list[Any]:
        y = m.estimate("rsqrt", x)
        r = m.fma(m.fneg(m.fmul(x, y)), y, m.c(1))
        return m.fma(m.fmul(y, r), m.fma(r, m.c(0.375), m.c(0.5)), y)
    return _usual(m, x, estimated, divided)


def _half(m: Lockstep, x: list[Any]) -> list[Any]:
    """x / 2 of normal numbers that are not the smallest ones: a step of the exponent leaves the multipliers to others."""
    return m.float(m.sub(m.bits(x), 1 << 23))


def sqrt(m: Lockstep, x: list[Any]) -> list[Any]:
    """The instruction; on AVX-512 what is faster, if no number is smaller than 2^-100 or infinite: rounded correctly."""
    if not m.wide:
        return m.sqrt(x)

    def refined() -> list[Any]:
        """An estimate, a step of Goldschmidt's method, and the remainder."""
        y = m.avx512("rsqrt14", x)
        g, h = m.fmul(x, y), _half(m, y)
        r = m.fma(m.fneg(g), h, m.c(0.5))
        g, h = m.fma(g, r, g), m.fma(h, r, h)
        return m.fma(m.fma(m.fneg(g), g, x), h, g)
    return _if_all_from(m, 2.0 ** -100, x, refined, lambda: m.sqrt(x))


def _if_all_from(m: Lockstep, low: float, x: list[Any], yes: Callable[[], list[Any]], no: Callable[[], list[Any]]
                 ) -> list[Any]:
    """yes() if all lanes are finite numbers of any sign, `low` > 0 or larger, else no(): only one of them is computed."""
    v, first = m.v, int(np.float32(low).view(np.int32))
    above = m.sub(m.shl(m.bits(x), 1), 2 * first)
    for other in above[1:]:
        above[0] = v.max(above[0], other, signed=False)
    inside = v.icmp("<", above[0], 2 * (INFINITY_BITS - first) - (1 << 32), signed=False)
    every = v.call(f"llvm.vector.reduce.and.v{v.lanes}i1", v.type("i1"), [inside])
    return v.choose(every, yes, no)


def _usual(m: Lockstep, x: list[Any], yes: Callable[[], list[Any]], no: Callable[[], list[Any]]) -> list[Any]:
    """yes() where all lanes are normal numbers, of any sign; where one is not, no() for that one.

    So what a number becomes does not depend on those beside it.
    """
    v, bits = m.v, m.bits(x)
    double = m.shl(bits, 1)
    least, most = double[0], bits[0]
    for a, b in zip(double[1:], bits[1:]):
        least, most = v.min(least, a, signed=False), v.max(most, b)

    def odd(least: Any, most: Any) -> Any:
        return v.or_(v.icmp("<", least, 2 * SMALLEST_NORMAL_BITS, signed=False), v.icmp(">=", most, INFINITY_BITS))
    some = v.call(f"llvm.vector.reduce.or.v{v.lanes}i1", v.type("i1"), [odd(least, most)])
    return v.choose(some, lambda: m.select([odd(a, b) for a, b in zip(double, bits)], no(), yes()), yes)


def hard_swish(m: Lockstep, x: list[Any]) -> list[Any]:
    return m.fmul(x, m.fmul(m.limit(m.fadd(x, m.c(3)), 0, 6), m.c(1 / 6)))


# ---- streams -------------------------------------------------------------------------------------------

Formula = Callable[[Lockstep, list[Any]], list[Any]]


def _emitter(name: str) -> Callable[..., None]:
    formula = FORMULAS[name]

    def emit(v: Any, x: Any, y: Any, n: Any) -> None:
        x, y = v.pointer(x), v.pointer(y)
        unroll = UNROLL_WIDE.get(name, UNROLL) if v.lanes == 16 else UNROLL
        group, size = Lockstep(v, unroll), v.cpu.vbytes
        full = v.sub(n, v.b.srem(n, v.i(unroll * v.lanes)))

        def body(i: Any, _: Any) -> None:
            at = v.shl(i, 2)
            made = formula(group, [v.load(v.f32, x, v.add(at, k * size)) for k in range(unroll)])
            for k, value in enumerate(made):
                v.store(value, y, v.add(at, k * size))
        v.loop(full, [], body, step=unroll * v.lanes)
        one, start = Lockstep(v, 1), v.shl(full, 2)
        x, y = v.at(x, start), v.at(y, start)
        v.vectors(v.sub(n, full), lambda i, store: store(
            formula(one, [v.load(v.f32, x, v.shl(i, 2))])[0], y, v.shl(i, 2)))
    return emit


def _twin(scalar: Callable[[Any], Any]) -> Callable[[int, int, int], None]:
    def twin(x: int, y: int, n: int) -> None:
        source, made = ((ctypes.c_float * int(n)).from_address(int(a)) for a in (x, y))
        for i in range(int(n)):
            made[i] = float(scalar(np.float32(source[i])))
    return twin


FORMULAS: dict[str, Formula] = {
    "exp": exp, "log": log, "sqrt": sqrt, "rsqrt": rsqrt, "logistic": logistic, "tanh": tanh, "hard_swish": hard_swish,
    "swish": swish,
    "gelu": gelu, "gelu_tanh": gelu_tanh,
}


def stream(name: str, scalar: Callable[[Any], Any]) -> MicroKernel:
    """The micro-kernel (x, y, n) of FORMULAS[name], also in place; scalar: the same in Python, of one number."""
    return micro_kernel(f"stream_{name}", "iii", _emitter(name), _twin(scalar))
