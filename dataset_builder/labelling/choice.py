"""Which labelling rule is used: its name and options, checked, and the labeller made from them."""

from typing import Any

from dataset_builder.errors import BadInputError
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.rule import Labeller
from dataset_builder.labelling.weighing import WeighedLabeller

WEIGHED = "weighed"
VOTES = "votes"
ORIGINAL = "original"
RULES = (WEIGHED, VOTES, ORIGINAL)

AnyLabeller = Labeller | WeighedLabeller

_OF_VOTES: dict[str, Any] = {
    "match": "word",
    "min_ingredient_votes": 2,
    "min_title_votes": 1,
    "on_conflict": "ingredients",
}
# The rule of the first system is one setting of the rule that counts votes.
_OF_ORIGINAL = {**_OF_VOTES, "match": "substring"}


def rule_settings(rule: str | None = None, min_lead: float | None = None, **given: Any) -> dict[str, Any]:
    """Return the whole settings of a rule; `rule` in the result is never "original", which is a setting of "votes".

    Args:
        rule: None for "votes" where an option belongs to it alone, otherwise for "weighed".
        min_lead: option of "weighed", see `WeighedLabeller`.
        given: options of "votes", see `Labeller`; None for one that was not given.

    Raises:
        BadInputError: an unknown rule, an option of another rule, or a value that is not allowed.
    """
    if rule not in (None, *RULES):
        raise BadInputError(f"--rule is {rule!r}; allowed are {', '.join(RULES)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in ("min_ingredient_votes", "min_title_votes"):
        if chosen.get(name, 1) < 1:
            raise BadInputError(f"--{name.replace('_', '-')} is {chosen[name]}; give a whole number of at least 1")
    if min_lead is not None and not 0 <= min_lead < 1:
        raise BadInputError(f"--min-lead is {min_lead}; give a share from 0 up, below 1")
    # Words are what the default rule matches too, so that naming them chooses no rule.
    of_votes = [name for name, value in chosen.items() if (name, value) != ("match", "word")]
    rule = rule or (VOTES if of_votes else WEIGHED)
    if rule == WEIGHED and of_votes:
        _refuse(of_votes[0], "counts votes", VOTES)
    if rule != WEIGHED and min_lead:
        _refuse("min_lead", "weighs evidence", WEIGHED)
    usual = _OF_ORIGINAL if rule == ORIGINAL else _OF_VOTES
    if rule == ORIGINAL:
        other = [name for name, value in chosen.items() if value != usual[name]]
        if other:
            raise BadInputError(
                f"--rule original has --{other[0].replace('_', '-')} {usual[other[0]]}; leave the option out, or give "
                "--rule votes"
            )
    return {"rule": VOTES if rule == ORIGINAL else rule, "min_lead": min_lead or 0.0, **usual, **chosen}


def _refuse(option: str, does: str, rule: str) -> None:
    raise BadInputError(
        f"--{option.replace('_', '-')} is an option of the rule that {does}; give --rule {rule}, or leave it out"
    )


def make_labeller(
    lexicon: Lexicon | None = None, rule: str = WEIGHED, min_lead: float = 0.0, **votes: Any
) -> AnyLabeller:
    """Return the labeller of settings as `rule_settings` gives them.

    Args:
        lexicon: None for the one that comes with the package.
        rule: "weighed" or "votes".
        min_lead: see `WeighedLabeller`; read by "weighed" alone.
        votes: see `Labeller`; read by "votes" alone.
    """
    return WeighedLabeller(lexicon, min_lead) if rule == WEIGHED else Labeller(lexicon, **votes)
