import pytest

from dataset_builder.labelling.amounts import A_LITTLE, PIECE, grams_of


@pytest.mark.parametrize(
    ("line", "grams"),
    [
        ("2 cups sugar", 480),
        ("1 1/2 cups mashed bananas", 360),
        ("½ lb butter", 227),
        ("1½ tsp. baking powder", 7.5),
        ("1¾ lb sweet potato", 1.75 * 454),
        ("1,5 kg Mehl", 1500),
        ("~150g (1/3 lb) bacon cubes", 150),
        ("100-200 g sugar", 100),
        ("2 heaped tbsp honey", 30),
        ("3T oil", 45),
        ("1t curry powder", 5),
        ("pasta: 800g", 800),
        ("1 (46 fluid ounce) bottle juice", 46 * 28),
        ("2 EL Zucker", 30),
        ("eine Prise Salz", 0.4),
        ("1 cuillère à soupe de sucre", 15),
        ("A quarter of a pound of sugar.", 113.5),
        ("Half a pint of milk", 236.5),
        ("Eight table-spoonfuls of flour.", 120),
        ("a good pinch of salt", 0.4),
        ("3 lemons", 3 * PIECE),
        ("Six eggs.", 6 * PIECE),
        ("salt to taste", A_LITTLE),
        ("salt", None),
        ("", None),
        ("1/0 cup x", 240),
    ],
)
def test_the_amount_of_a_line_is_read_in_grams(line, grams):
    assert grams_of(line) == (None if grams is None else pytest.approx(grams))
