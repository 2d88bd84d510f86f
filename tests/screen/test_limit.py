import re
import time
import warnings

import pytest

from cgcnn_jax.data.crystal import CrystalError
from cgcnn_jax.screen.limit import TimeLimit
from tests.screen.items import Odd


def test_a_structure_that_takes_too_long_is_given_up_and_the_next_is_not_affected() -> None:
    with TimeLimit(0.2) as limit:
        began = time.monotonic()
        # It catches every Exception on its way, as readers of structure files do.
        with pytest.raises(CrystalError, match=r"^slow: took longer than 0\.2 s$"):
            limit.entry(Odd("slow", "sleep")).read()
        assert time.monotonic() - began < 10
        assert limit.entry(Odd("next")).read().id == "next"
        assert limit.call("x", lambda: 3) == 3


def test_time_is_counted_anew_for_each_structure() -> None:
    with TimeLimit(0.4) as limit:
        for _ in range(4):
            assert limit.call("x", lambda: time.sleep(0.2) or 1) == 1


@pytest.mark.parametrize(
    ("does", "reason"),
    [("memory", "odd: takes more memory than there is"), ("permission", "odd: cannot be read (.*Permission denied")],
)
def test_what_a_structure_causes_is_its_reason(does: str, reason: str) -> None:
    with TimeLimit(60) as limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CrystalError, match=reason.replace("(.", r"\(.")):
            limit.entry(Odd("odd", does)).read()


def test_other_errors_pass() -> None:
    with TimeLimit(60) as limit, pytest.raises(re.error):
        limit.call("x", lambda: re.compile("("))
