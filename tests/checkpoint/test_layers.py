import pytest

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.layers import layers_argument, parse_layers


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [
        ("13", list(range(13))),
        (13, list(range(13))),
        ("26", list(range(26))),
        ("0-12", list(range(13))),
        ("0,2,4", [0, 2, 4]),
        ("::2", list(range(0, 26, 2))),
        ("1:6:2", [1, 3, 5]),
        ("20:", list(range(20, 26))),
        ("0-10,22-25", [*range(11), *range(22, 26)]),
        ("0-1, 5 ,7:9", [0, 1, 5, 7, 8]),
        ("4,2", [4, 2]),
    ],
)
def test_forms(layers: str, blocks: list[int]) -> None:
    assert parse_layers(layers, 26) == blocks


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ("27", "asks for the first 27"),
        ("0", "asks for the first 0"),
        ("0-26", "no block 26"),
        ("26,1", "no block 26"),
        ("1,1", "block 1 more than once"),
        ("0-3,2", "block 2 more than once"),
        ("5-3", "runs backwards"),
        ("3:3", "names no block"),
        ("::0", "stride of 0"),
        ("0:27", "beyond the last block"),
        ("-1", "none of its forms"),
        ("", "none of its forms"),
        ("first", "none of its forms"),
        ("0,,2", "none of its forms"),
    ],
)
def test_errors_say_how_many_blocks_there_are(layers: str, problem: str) -> None:
    with pytest.raises(InheritError, match=rf"{problem}.*The source has 26 blocks, numbered 0 to 25"):
        parse_layers(layers, 26)


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [
        ([0, 1, 2, 3], "4"),
        ([0, 1, 4, 5], "0-1,4-5"),
        ([3, 4, 5], "3-5"),
        ([0, 5], "0,5"),
        ([0], "1"),
        ([5], "5-5"),
        ([4, 2], "4,2"),
    ],
)
def test_layers_argument_is_what_names_these_blocks(blocks: list[int], layers: str) -> None:
    assert layers_argument(blocks) == layers
    assert parse_layers(layers, 6) == blocks
