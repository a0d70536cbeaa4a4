"""Where the ticks of an axis stand, and what stands at them."""

import math

from tuner.report.scale import Scale

# The mantissas of a log axis' ticks, from few to many.
_MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
_FEW = 3  # ticks: a log axis with fewer has finer ones


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Readable ticks between two positive numbers, evenly spread on a log axis; 8 at most."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    sparse = [10.0**power for power in range(first, last + 1) if not power % every]
    found = [it for it in sparse if low <= it <= high][:most]
    if every > 1:
        return found
    for mantissas in _MANTISSAS:
        ticks = [
            float(f"{mantissa}e{power}")
            for power in range(first, last + 1)
            for mantissa in mantissas
        ]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(found) < len(inside) <= most and not (len(found) >= _FEW and 3.0 in mantissas):
            found = inside
    return found if len(found) >= min(_FEW, most) else linear_ticks(low, high, min(most, 6))


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Readable ticks between two numbers, in steps of 1, 2 or 5."""
    if not high > low:
        return [low]
    power = math.floor(math.log10((high - low) / most))
    for step in (float(f"{mantissa}e{power + up}") for up in (0, 1) for mantissa in (1, 2, 5)):
        places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(places) <= most:
            return [float(f"{place * step:.10g}") for place in places]
    return [low, high]


def tick_text(scale: Scale, shown: float) -> str:
    """A shown value at an axis: ``0.5 %``, ``0.02``, ``1e-5``."""
    if scale.share:
        return f"{float(f'{100 * shown:.4g}'):,g} %"
    return number_text(shown)


def number_text(number: float) -> str:
    """A number at an axis: ``0.001``, ``1e-5``, ``10,000``."""
    size = abs(number)
    if size and not 1e-4 <= size < 1e6:
        mantissa, _, power = f"{number:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{float(f'{number:.4g}'):,g}"


def value_ticks(
    scale: Scale, low: float, high: float, most: int = 8
) -> tuple[list[float], list[str]]:
    """Readable ticks for shown values, and what stands at them."""
    spread = bool(math.isfinite(low) and math.isfinite(high))
    if not spread:
        return [], []
    ticks = log_ticks(low, high, most) if scale.log else linear_ticks(low, high, most)
    return ticks, [tick_text(scale, tick) for tick in ticks]
