"""What methods and analyses declare of themselves."""

import pytest

from pruning import PruningError
from pruning.metadata import AnalysisInfo, analysis, info_of


def test_an_analysis_that_declares_no_keys_is_refused_where_it_is_defined():
    with pytest.raises(PruningError, match=r"analysis rows names no keys: say which .* @analysis\(keys=\(\.\.\.\)\)"):

        @analysis(plots=("far",))
        def rows(lab, densities):
            yield {"far": 1.0}


def test_a_plain_function_has_the_defaults():
    assert info_of(lambda lab, densities: iter(()), AnalysisInfo) == AnalysisInfo()
