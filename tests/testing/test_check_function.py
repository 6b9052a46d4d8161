import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace.testing import check_function


def test_a_function_of_each_row_passes_and_gives_its_values() -> None:
    assert check_function(pc.add, [1, 2, None], [10, 20, 30]) == [11, 22, None]


def test_a_function_that_looks_at_its_whole_batch_is_found() -> None:
    def share_of_batch(numbers: pa.Array) -> pa.Array:
        return pc.divide(pc.cast(numbers, pa.float64()), pc.sum(numbers))

    with pytest.raises(
        AssertionError, match=r"'share_of_batch' gave 1.0 instead of .* for row 0 when its rows came in"
    ):
        check_function(share_of_batch, [1, 2, 3])


def test_a_function_that_remembers_is_found_by_the_order_of_rows() -> None:
    def previous(numbers: pa.Array) -> pa.Array:
        return pa.array([None, *numbers.to_pylist()[:-1]] if len(numbers) else [], numbers.type)

    with pytest.raises(AssertionError, match="previous"):
        check_function(previous, [1, 2, 3])


def test_a_function_that_gives_another_number_of_values_is_found() -> None:
    with pytest.raises(AssertionError, match="gave 2 values for 3 rows"):
        check_function(lambda numbers: numbers.drop_null(), [1, None, 3])


def test_nan_is_equal_to_itself_here() -> None:
    assert len(check_function(lambda numbers: numbers, [float("nan"), 1.0])) == 2
