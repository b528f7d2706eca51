import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import make_labeller, rule_settings
from dataset_builder.labelling.rule import Labeller
from dataset_builder.labelling.weighing import WeighedLabeller

COUNTED = {"match": "word", "min_ingredient_votes": 2, "min_title_votes": 1, "on_conflict": "ingredients"}


def test_the_default_weighs_and_an_option_of_votes_counts():
    assert rule_settings()["rule"] == rule_settings(match="word")["rule"] == "weighed"
    assert rule_settings(min_title_votes=1) == {"rule": "votes", "min_lead": 0.0, **COUNTED}
    assert rule_settings(match="substring")["rule"] == "votes"
    assert isinstance(make_labeller(**rule_settings()), WeighedLabeller)
    assert isinstance(make_labeller(**rule_settings("votes")), Labeller)


def test_the_original_rule_is_the_one_of_its_options():
    by_options = rule_settings(match="substring", min_ingredient_votes=2, min_title_votes=1, on_conflict="ingredients")
    assert (
        rule_settings("original") == by_options == {"rule": "votes", "min_lead": 0.0, **COUNTED, "match": "substring"}
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "best"}, "--rule is 'best'; allowed are weighed, votes, original"),
        ({"rule": "weighed", "on_conflict": "drop"}, "--on-conflict is an option of the rule that counts votes"),
        ({"rule": "votes", "min_lead": 0.1}, "--min-lead is an option of the rule that weighs evidence"),
        ({"match": "substring", "min_lead": 0.1}, "--min-lead is an option of the rule that weighs evidence"),
        ({"rule": "original", "match": "word"}, "--rule original has --match substring; leave the option out"),
        ({"min_lead": 1.0}, "--min-lead is 1.0; give a share from 0 up, below 1"),
        ({"min_title_votes": 0}, "--min-title-votes is 0; give a whole number of at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(BadInputError, match=message):
        rule_settings(**given)
