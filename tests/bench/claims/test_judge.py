"""Verdicts from records made by hand."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import registry
from bench.claims import config_cache, page, schema
from bench.claims import judge as claims
from bench.cli import main
from bench.config import settings
from bench.errors import UsageError
from bench.runner.jobs import open_task
from bench.storage.records import read_records
from tests.bench.claims.toy_claims import CLAIM, SPREADS, TOY, both, judged, measured, only, reading, record

LEADERBOARDS = Path(__file__).parents[3] / "leaderboards"


def test_reproduced_and_not_reproduced_show_their_numbers():
    verdict = only(both([80.0, 81.0, 82.0], [70.0, 71.0, 72.0]))
    assert (verdict.verdict, verdict.seeds) == ("reproduced", 3)
    assert verdict.numbers == ["0.5: 81.00 ± 2.48 (3) vs 71.00 ± 2.48 (3), Δ +10.00 ± 0.00 ✓"]
    verdict = only(both([70.0, 71.0, 72.0], [80.0, 81.0, 82.0]))
    assert verdict.verdict == "not reproduced"
    assert verdict.numbers[0].endswith("Δ -10.00 ± 0.00 ✗")


def test_costs_are_compared_by_plain_size_with_each_other_and_with_numbers():
    whole, ticket = {"number": 1.5}, {**CLAIM["needs"]["ticket"], "value": "training"}  # the records cost 2.0
    records = both([80, 81, 82], [70, 71, 72])
    less = only(records, needs={"whole": whole, "ticket": ticket}, of=["whole", "ticket"])
    assert (less.verdict, less.seeds) == ("not reproduced", 3)
    assert less.numbers == ["0.5: 1.50 ± 0.00 (3) vs 2.00 ± 0.00 (3), Δ -0.50 ± 0.00 ✗"]
    assert only(records, needs={"whole": whole, "ticket": ticket}, of=["ticket", "whole"]).verdict == "reproduced"
    random = {**CLAIM["needs"]["random"], "value": "training"}
    assert only(records, needs={"a": random, "b": ticket}, of=["a", "b"], expect="not_worse").verdict == "reproduced"
    share = {"half": {"number": 0.5}, "ticket": {**ticket, "value": "inference"}}
    assert only(records, needs=share, of=["half", "ticket"], expect="equal_within").verdict == "reproduced"
    speed = {"two": {"number": 2}, "ticket": {**ticket, "value": "speedup"}}  # never measured
    assert (only(records, needs=speed, of=["ticket", "two"]).verdict, only(records, needs=speed, of=["ticket", "two"]).seeds) == (
        "not run",
        0,
    )


def test_a_ticket_before_its_training_is_compared_with_a_number():
    needs = {"ticket": {**CLAIM["needs"]["ticket"], "value": "untrained"}, "chance": {"number": 10.0}}
    claim = {"needs": needs, "of": ["ticket", "chance"]}
    found = [record(seed, 80.0, untrained=value) for seed, value in enumerate([40.0, 41.0, 42.0])]
    assert only(found, **claim).numbers == ["0.5: 41.00 ± 2.48 (3) vs 10.00 ± 0.00 (3), Δ +31.00 ± 2.48 ✓"]
    assert only([record(seed, 80.0) for seed in range(3)], **claim).verdict == "not run"  # these were not looked at before


def test_dense_is_the_dense_network_of_the_same_seed():
    records = both([90.5, 91.5, 92.5], [1.0, 1.0, 1.0])  # dense: 90, 91, 92
    needs = {"ticket": CLAIM["needs"]["ticket"]}
    assert only(records, needs=needs, of=["ticket", "dense"], margin=0.4).verdict == "reproduced"
    assert only(records, needs=needs, of=["dense", "ticket"]).verdict == "not reproduced"
    assert only(records, needs=needs, of=["ticket", "dense"], expect="matches").verdict == "reproduced"


def test_records_of_another_recipe_do_not_count():
    records = both([80.0] * 3, [70.0] * 3)
    elsewhere = {**CLAIM["places"][0], "overrides": ["train.lr=0.05"]}
    assert only(records, places=[elsewhere]).seeds == 0
    assert only(both([80.0] * 3, [70.0] * 3, overrides=["train.lr=0.05"]), places=[elsewhere]).verdict == "reproduced"


def test_a_record_without_a_key_is_of_its_default_alone():
    """As cnn_cifar's are: options that came later go unsaid at their defaults."""
    place = schema.Place(task="tasks/cnn_cifar", data="digits", protocol="smoke", densities=[0.5])
    other = place.model_copy(update={"overrides": ["train.optimizer=adam"]})
    identity = open_task(settings(place.task, place.words[3:])[0]).identity()
    made = SimpleNamespace(identity=SimpleNamespace(task="cnn_cifar", task_version=1, protocol="smoke", config=identity))
    assert "optimizer" not in identity["train"]
    assert claims.setting_of(made) == config_cache.made(place.task, tuple(place.words[3:])).setting
    assert claims.setting_of(made) != config_cache.made(other.task, tuple(other.words[3:])).setting


@pytest.mark.parametrize("task", [TOY, *registry.names("tasks")])
def test_the_identity_of_a_task_is_known_without_building_it(task):
    setting = settings(task, ["protocol=smoke"])[0]
    built = open_task(setting)
    sections = {section: setting.config[section] for section in ("data", "model", "train")}
    assert type(built).identity_of(sections) == built.identity()


def test_commands_say_mappings_as_hydra_reads_them():
    place = schema.Place(task="tasks/cnn_cifar", data="digits", protocol="smoke", densities=[0.5])
    selection = schema.Selection(method="imp_by_kind", options={"rates": {"conv": 0.2, "head": 0.1}})
    (command,) = claims._commands(place, {"selection": selection}, 1, {})
    words = [word for word in command.words if word.startswith("method")]
    assert settings("tasks/cnn_cifar", words)[0].config["method"]["rates"] == {"conv": 0.2, "head": 0.1}


def test_all_or_any_density():
    records = [*both([80.0] * 3, [70.0] * 3), *both([60.0] * 3, [70.0] * 3, density=0.2)]
    places = [{**CLAIM["places"][0], "densities": [0.2, 0.5]}]
    assert only(records, places=places).verdict == "not reproduced"
    verdict = only(records, places=places, over="any")
    assert verdict.verdict == "reproduced"
    assert [line[:3] + line[-1] for line in verdict.numbers] == ["0.5✓", "0.2✗"]


def test_too_few_seeds_are_not_run_and_say_how_many():
    verdict = only(both([80.0, 80.0, 80.0], [70.0, 70.0]))
    assert (verdict.verdict, verdict.seeds) == ("not run", 2)
    assert "not run: 2 of 3 seeds" in page.render([verdict])
    assert only(both([80.0] * 3, [70.0] * 3), min_seeds=4).verdict == "not run"
    assert only([]).seeds == 0


def test_a_diverged_seed_was_run_and_speaks_against_the_claim():
    records = [*both([80.0, 81.0], [70.0, 71.0, 72.0]), record(2, None, status="diverged")]
    verdict = only(records)
    assert (verdict.verdict, verdict.seeds) == ("not reproduced", 3)
    assert verdict.numbers == ["0.5: 80.50 ± 6.35 (2) vs 70.50 ± 6.35 (2), Δ +10.00 ± 0.00, 1 diverged"]
    records = [*both([80.0, 81.0], [70.0, 71.0, 72.0]), record(2, None, status="not_applicable")]
    assert only(records).verdict == "not run"


def test_only_records_of_exactly_that_command_count():
    assert only(both([80.0] * 3, [70.0] * 3, overrides=["train.lr=0.2"])).seeds == 0
    assert only(both([80.0] * 3, [70.0] * 3, rewind="1ep")).seeds == 0
    places = [{**CLAIM["places"][0], "overrides": ["train.lr=0.2"]}]
    verdict = only(both([80.0] * 3, [70.0] * 3, overrides=["train.lr=0.2"], note="points, JPEG copy"), places=places)
    assert (verdict.verdict, verdict.where, verdict.note) == (
        "reproduced",
        "toy · points · mlp · smoke, train.lr=0.2",
        "points, JPEG copy",
    )


def test_only_records_that_went_through_the_densities_of_the_command_count():
    places = [{**CLAIM["places"][0], "densities": [0.2]}]  # the command asks for 0.5 and 0.2
    records = [*both([80.0] * 3, [70.0] * 3, density=0.2), *both([1.0] * 3, [90.0] * 3, density=0.2, rounds=[])]
    assert only(records, places=places).verdict == "reproduced"
    alone = [{**places[0], "overrides": ["densities=[0.2]"]}]
    assert only(records, places=alone).verdict == "not reproduced"
    assert only(both([80.0] * 3, [70.0] * 3, density=0.2, rounds=[{"weights": 0.4}]), places=places).seeds == 0


def test_a_place_may_need_something_else():
    place = {
        **CLAIM["places"][0],
        "needs": {name: {**selection, "options": {"rewind": "1ep"}} for name, selection in CLAIM["needs"].items()},
    }
    here, there = judged(both([80.0] * 3, [70.0] * 3, rewind="1ep"), places=[*CLAIM["places"], place])
    assert (here.verdict, there.verdict) == ("not run", "reproduced")


def test_commands_make_what_is_missing_and_are_joined():
    needs = {**CLAIM["needs"], "random": {"method": "imp", "options": {"rewind": "init"}, "control": "shuffle"}}
    verdicts = [only([]), only([], id="other", needs=needs, min_seeds=4)]
    assert [str(c) for c in verdicts[0].run] == [
        f"bench run {TOY} data=points protocol=smoke method=imp method.rewind=init 'controls=[random]' 'seeds=[0,1,2]'"
    ]
    assert page._missing(verdicts).keys() == {claims.Command(verdicts[0].run[0].words, frozenset({"random", "shuffle"}), 4)}


def test_its_commands_make_exactly_the_records_a_claim_needs(tmp_path):
    (command,) = only([]).run
    words = shlex.split(str(command))
    assert main([*words[1:], "threads=1", f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}"]) == 0
    verdict = only(read_records(tmp_path / "runs"))
    assert (verdict.seeds, verdict.verdict == "not run") == (3, False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"needs": {**CLAIM["needs"], "ticket": {"method": "impp"}}}, "unknown method 'impp'; did you mean imp"),
        (
            {"needs": {**CLAIM["needs"], "ticket": {"method": "imp", "options": {"rewnd": "init"}}}},
            "unknown option of imp 'rewnd'; did you mean rewind",
        ),
        ({"places": [{**CLAIM["places"][0], "densities": [0.3]}]}, "density 0.3 is not among those that"),
        ({"places": [{**CLAIM["places"][0], "data": "pints"}]}, "unknown data 'pints'; did you mean points?"),
        ({"places": [{**CLAIM["places"][0], "overrides": ["train.lrr=1"]}]}, "unknown key 'train.lrr'"),
    ],
)
def test_a_place_that_cannot_be_run_is_one_line_that_names_the_claim(changes, says):
    with pytest.raises(UsageError) as error:
        judged([], **changes)
    message = str(error.value)
    assert message.startswith("claim ticket-beats-random: ")
    assert says in message
    assert "\n" not in message


def test_the_entries_of_this_repository_can_all_be_run():
    papers = schema.read(LEADERBOARDS / "claims")
    assert {v.verdict for v in claims.judge(papers, [])} == {"not run"}  # every place composes, every option is known


def test_readings_are_compared_with_each_other_and_with_numbers(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(SPREADS)
    early, late = reading(path, "0it"), reading(path, "1ep")
    first = measured(tmp_path, capsys, None, {"early": early, "late": late})
    assert (first.verdict, first.seeds) == ("not run", 0)
    (command,) = map(shlex.split, map(str, first.run))
    assert command == ["bench", "analyse", f"{path}:spreads", TOY, "data=points", "protocol=smoke", "seeds=[0,1,2]"]
    verdict = measured(tmp_path, capsys, command[1:], {"early": early, "late": late})  # 3, 4, 5 against 1, 1, 1
    assert (verdict.verdict, verdict.seeds, verdict.note) == ("reproduced", 3, "Generated points.")
    assert verdict.numbers == ["4 ± 2.5 (3) vs 1 ± 0 (3), Δ +3 ± 2.5 (3) ✓"]
    assert measured(tmp_path, capsys, None, {"two": {"number": 2}, "late": late}).verdict == "reproduced"
    assert measured(tmp_path, capsys, None, {"late": late, "two": {"number": 2}}).verdict == "not reproduced"
    assert measured(tmp_path, capsys, None, {"early": reading(path, "0it", factor=2), "late": late}).verdict == "not run"


def test_a_reading_that_is_not_there_is_one_line(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(SPREADS)
    command = ["analyse", f"{path}:spreads", TOY, "data=points", "protocol=smoke"]
    late = reading(path, "1ep")
    with pytest.raises(UsageError, match="has no row"):
        measured(tmp_path, capsys, command, {"a": reading(path, "2ep"), "late": late})
    with pytest.raises(UsageError, match="has the keys start, density and the columns"):
        measured(tmp_path, capsys, None, {"a": {**late, "value": "sprad"}, "late": late})
    with pytest.raises(UsageError, match="unknown option of analysis"):
        measured(tmp_path, capsys, None, {"a": reading(path, "1ep", factr=2), "late": late})
