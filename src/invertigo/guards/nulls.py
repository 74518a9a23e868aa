"""Laws of weight statistics under an honest server, in closed form: thresholds learned from one run do not transfer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

HONEST_DIMENSIONS = 16
"""Trained rows are correlated; they are compared with random rows in at most this many dimensions."""


def _stats() -> Any:
    """`scipy.stats`, which takes most of a second to import, where a guard runs."""
    from scipy import stats

    return stats


def at_least_one(p: float, tests: int) -> float:
    """Probability bound that any of `tests` tests shows what one shows with probability `p` (Bonferroni)."""
    return min(1.0, p * tests)


def sign_balance_p(negatives: np.ndarray, counts: np.ndarray, rows: float | None = None) -> float:
    r"""Lower tail of $\sum_k z_k^2$, $z_k = (m_k - n_k/2) / (\sqrt{n_k} / 2)$, against $\chi^2$ at `rows` of freedom.

    The number $m_k$ of negative weights among the $n_k$ of row $k$ is binomial under any symmetric initialisation;
    training only spreads it. Rows that are balanced exactly are too good to be true. Trained rows share what their
    steps have in common, so they count as the fewer, independent `rows` that spread as much (`independent_rows`).
    """
    used = counts > 0
    if not used.any():
        return 1.0
    z = (negatives[used] - counts[used] / 2) / (np.sqrt(counts[used]) / 2)
    # Half a count of rounding, which an odd row must have, is not held against it.
    mean = float(np.mean(np.maximum(z**2, 1 / counts[used])))
    free = max(1.0, min(len(z), len(z) if rows is None else rows))
    return float(_stats().chi2.cdf(mean * free, free))


def independent_rows(signs: np.ndarray) -> float:
    r"""$K^2 / \sum_{kl} r_{kl}^2$ of K rows of signs (row, feature), r being their correlations (Satterthwaite 1946).

    The sum of squares of K correlated normal numbers has the mean and variance of a multiple of $\chi^2$ with this many
    degrees of freedom. Chance alone gives $r^2 = 1/n$, so it never exceeds n: the test errs on the safe side.
    """
    live = (signs**2).sum(1) > 0
    rows = signs[live] / np.sqrt((signs[live] ** 2).sum(1, keepdims=True))
    return float(len(rows) ** 2 / np.sum((rows @ rows.T) ** 2)) if len(rows) else 0.0


def cosine_tail(cosine: float, features: int) -> float:
    r"""$P(|\cos| \ge c) = I_{1-c^2}((d-1)/2, 1/2)$ for two random directions in $d$ dimensions."""
    dimensions = min(features, HONEST_DIMENSIONS)
    return float(special.betainc((dimensions - 1) / 2, 0.5, max(0.0, 1 - cosine**2)))


def pairs_p(observed: int, pairs: int, p: float) -> float:
    """Probability of `observed` or more alike pairs among `pairs` (Poisson bound)."""
    return float(_stats().poisson.sf(observed - 1, pairs * p)) if observed > 0 else 1.0


def one_direction_p(energy: float, rows: int, honest: float = 0.5) -> float:
    r"""Hoeffding's bound $\exp(-2 K (e - e_0)^2)$ on the mean squared cosine with the best common direction.

    $e_0 = 1/2$ is the mean for rows in a plane, already more degenerate than an honest layer.
    """
    return math.exp(-2 * rows * max(0.0, energy - honest) ** 2)


def dominance_p(share: float, count: int) -> float:
    r"""$P(\max |w| / \sum |w| \ge s) \le n (1 - s)^{n-1}$: exact for exponential weights and $s \ge 1/2$.

    Normal and uniform weights have lighter tails, so this is on the safe side for them.
    """
    return at_least_one((1 - share) ** (count - 1), count) if count > 1 else 1.0


def row_tail_p(z: float, deviation: float) -> float:
    r"""Upper tail of a normal law of $-b \sqrt n / \|w\|$ with `deviation`."""
    return float(_stats().norm.sf(z / deviation))


def small_row_p(ratio: float, features: int, dimensions: int = 8) -> float:
    r"""$P(\chi^2_d / d \le q)$: a row whose squared norm is `ratio` of the largest one's."""
    return float(_stats().chi2.cdf(ratio * min(features, dimensions), min(features, dimensions)))


def predictive_p(past: list[tuple[int, float]], value: float, *, floor: float, prior: float = 4.0) -> float:
    r"""Upper tail of $(v - \hat v) / (s \sqrt{1 + c/n})$ against Student's t, $\nu_0 + n - 1$ degrees of freedom.

    $\hat v$ is the trend (Theil-Sen) at the last visit, as long as it points downwards and not below what was seen,
    else the median of the last five values: what an honest federation is expected to improve must not be expected to
    worsen. $s^2$ pools the residuals with $\nu_0$ pseudo-observations of deviation `floor`; c is the variance of the
    estimate in units of $s^2/n$. Rounds without this client only matter to the trend.
    """
    rounds, values = (np.array(column, dtype=float) for column in zip(*past))
    slope = 0.0
    if len(past) >= 4 and np.ptp(rounds) > 0:
        trend: Any = _stats().theilslopes(values, rounds)
        slope = min(0.0, float(trend.slope))
    level = float(np.median(values - slope * rounds))
    if slope < 0:
        expected, uncertain = max(level + slope * rounds[-1], float(values.min())), 5 / len(past)
    else:
        expected, uncertain = float(np.median(values[-5:])), 2 / min(len(past), 5)
    residuals = values - (level + slope * rounds)
    variance = (prior * floor**2 + float(np.sum(residuals**2))) / (prior + len(past) - 1)
    z = (value - expected) / math.sqrt(variance * (1 + uncertain))
    return float(_stats().t.sf(z, prior + len(past) - 1))


def conformal_p(past: list[float], value: float) -> float | None:
    r"""$(1 + \#\{v_i \ge v\}) / (n + 1)$ over the client's own clean rounds: valid whatever the law, if exchangeable.

    It cannot fall under 1/(n+1), so it needs n >= 1/alpha rounds before it can speak. None without any round.
    """
    if not past:
        return None
    return (1 + sum(v >= value for v in past)) / (len(past) + 1)


def least_error(loss: float, classes: int) -> float:
    r"""The smallest mean of $u = 1 - p(y|x)$ that a calibrated classifier can have at this mean cross-entropy.

    By Fano's inequality $L \le h(u) + u \log(C - 1)$, h being the entropy of a coin; solved by bisection.
    """
    low, high = 0.0, 1 - 1 / classes
    if loss >= math.log(classes):
        return high
    for _ in range(40):
        error = (low + high) / 2
        coin = -error * math.log(error) - (1 - error) * math.log1p(-error)
        low, high = (error, high) if coin + error * math.log(classes - 1) < loss else (low, error)
    return low


def rare_rows_p(share: float, rows: int, examples: int, honest: float = 0.35) -> float:
    r"""Hoeffding's bound $\exp(-2 m (s - s_0)^2)$ on the share s of rows that fire for hardly any example.

    Rows are read off the same examples and resemble each other, so no more than m = min(rows, examples) of them count.
    $s_0$ lies above what we measured of honest layers, trained ones included.
    """
    return math.exp(-2 * min(rows, examples) * max(0.0, share - honest) ** 2)
