"""What a source of one's own must be, and how it is refused where it is not."""

import pytest
import torch

from tests.tiny import Blobs


def blobs(**changed):
    source = Blobs()
    source.all = source.all._replace(**changed)
    return source


def test_rows_as_they_should_be_pass():
    blobs().check_rows()


N = len(Blobs().all.y)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"x": torch.rand(N, 1, 8, 8)}, "x is torch.float32, and images are uint8 of 0 to 255"),
        ({"x": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}, f"x has 3 rows and y {N}"),
        ({"y": torch.zeros(N, dtype=torch.int32)}, "y is not int64, the place of a row's class"),
        ({"class_names": ("one", "two")}, "y is not int64, .* among 2 class_names"),
        ({"index": torch.arange(N) + 5}, f"index is not 0 to {N - 1}, in this order"),
    ],
)
def test_rows_on_which_nothing_can_count_are_refused(changed, fault):
    with pytest.raises(ValueError, match=f"data.source=Blobs cannot be used: .*{fault}"):
        blobs(**changed).check_rows()


class Descending(Blobs):
    def select(self, split):
        return super().select(split).flip(0)


def test_a_split_that_does_not_ascend_is_refused():
    with pytest.raises(ValueError, match="rows of 'train' do not ascend"):
        Descending().rows("train")
