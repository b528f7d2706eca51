"""What intervals and tests say, in words, and no more: both must be sure, so that few rows claim nothing."""

from trainer_scripts.intervals import Interval
from trainer_scripts.scores import Score


def usage(modality: str, loss: Interval | None, score: Score) -> str:
    """Return whether a modality is used: shuffling it over dishes must cost the model something for sure."""
    cost = loss if loss is None or score.greater_is_better else Interval(-loss.value, -loss.high, -loss.low, loss.p)
    if cost is None or not (cost.above_zero and cost.tested):
        measured = (
            f" (loss {cost.value:+.3f} [{cost.low:+.3f}, {cost.high:+.3f}]{_p_value(cost)})" if cost is not None else ""
        )
        return (
            f"!!! THE {modality.upper()} IS NOT USED, as far as these rows tell: shuffling it over dishes costs no "
            f"{score.name} for sure{measured}"
        )
    return (
        f"{modality} is used: shuffling it over dishes costs {cost.value:.3f} {score.name} "
        f"[{cost.low:.3f}, {cost.high:.3f}]{_p_value(cost)}"
    )


def compared(gain: Interval, score: Score) -> str:
    """Return what interval and test say of a difference."""
    better = gain.low > 0 if score.greater_is_better else gain.high < 0
    worse = gain.high < 0 if score.greater_is_better else gain.low > 0
    if not gain.tested:
        better = worse = False
    return "is better than" if better else "is WORSE than" if worse else "is NOT SHOWN to differ from"


def shown(gain: Interval, score: Score) -> str:
    """Return a difference with its interval and p."""
    return f"{gain.value:+.3f} {score.name} [{gain.low:+.3f}, {gain.high:+.3f}]{_p_value(gain)}"


def _p_value(interval: Interval) -> str:
    return "" if interval.p is None else f", p = {interval.p:.4f}"
