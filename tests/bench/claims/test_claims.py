"""The ledger: predicates on numbers computed by hand, entries that are refused in one line, verdicts from hand-made records."""

import json
import re
import shlex
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bench.claims import ledger as claims
from bench.claims.ledger import Pair, better, equal_within, gap_grows, matches, not_worse
from bench.cli import main
from bench.config import settings
from bench.errors import UsageError
from bench.runner.analyses import read_analyses
from bench.runner.jobs import open_task
from bench.storage.records import Cost, Identity, Record, Result, Ticket, read_records, write_record

TOY = str(Path(__file__).parents[2] / "toy")
LEADERBOARDS = Path(__file__).parents[3] / "leaderboards"
DENSE = [90.0, 91.0, 92.0]
CLAIM = {"id": "ticket-beats-random", "source": "Table 1", "statement": "A ticket beats a random mask.",
         "needs": {"ticket": {"method": "imp", "options": {"rewind": "init"}},
                   "random": {"method": "imp", "options": {"rewind": "init"}, "control": "random"}},
         "expect": "better", "of": ["ticket", "random"],
         "places": [{"task": TOY, "data": "points", "protocol": "smoke", "densities": [0.5]}]}


@cache
def composed(overrides):
    """The toy task's setting."""
    return settings(TOY, ["data=points", "protocol=smoke", "method=imp", *overrides])[0]


def seeds(*values):
    """Seed -> value."""
    return dict(enumerate(values))


def record(seed, test, density=0.5, control=None, status="ok", rewind="init", overrides=(), note="points", rounds=None,
           untrained=None):
    """A record of the toy task as ``bench run`` would make it, unless ``rounds`` says otherwise."""
    setting = composed(tuple(overrides))
    config = {section: {k: v for k, v in setting.config[section].items() if k not in ("root", "validate_every")}
              for section in ("data", "model", "train")}
    options = {**{k: v for k, v in setting.config["method"].items() if k != "name"}, "rewind": rewind}
    identity = Identity(task="toy", task_version=1, data="points", model="mlp", protocol="smoke", config=config,
                        fingerprint="f", method="imp", method_config=options, densities={"weights": density},
                        rounds=[{"weights": d} for d in (0.5, 0.2) if d > density] if rounds is None else rounds, seed=seed,
                        control=control)
    dense = DENSE[seed % 3]
    numbers = {} if status != "ok" else {
        "result": Result(metric="accuracy", higher_is_better=True, val={"accuracy": test}, test={"accuracy": test},
                         dense_val={"accuracy": dense}, dense_test={"accuracy": dense}, step=20,
                         untrained_test=untrained and {"accuracy": untrained}),
        "ticket": Ticket(masks="m", start="s", schedule="replay", stages=["a/0-20"]),
        "cost": Cost(search_steps=20, train_steps=20, search_dense_trainings=1.0, train_dense_trainings=1.0, search_seconds=1.0,
                     train_seconds=1.0, inference_macs=500, inference_macs_dense=1000)}
    return Record.make(identity, status=status, reason=None if status == "ok" else "the loss became nan", label="imp", note=note,
                       command="bench run", environment={}, created="2026-01-01T00:00:00Z", **numbers)


def both(ticket, random, **fields):
    """Records of a ticket and its random control."""
    return [*(record(s, v, **fields) for s, v in enumerate(ticket)),
            *(record(s, v, control="random", **fields) for s, v in enumerate(random))]


def judged(records, **changes):
    """The verdicts on the claim above, changed."""
    return claims.judge([claims.Paper(paper="A & B 2020", claims=[{**CLAIM, **changes}])], records)


def only(records, **changes):
    """The one verdict."""
    (verdict,) = judged(records, **changes)
    return verdict


# predicates


def test_better_needs_the_margin_and_an_interval_without_0():
    # differences 1, 2, 3: mean 2, half-width 4.303 / sqrt(3) = 2.48; 2, 3, 4: mean 3, half-width 2.48
    unsure, sure = Pair(seeds(1.0, 12.0, 23.0), seeds(0.0, 10.0, 20.0)), Pair(seeds(2.0, 13.0, 24.0), seeds(0.0, 10.0, 20.0))
    assert better([unsure, sure], 0) == [False, True]
    assert better([sure], 2.9) == [True]
    assert better([sure], 3.0) == [False]
    assert better([Pair(sure.b, sure.a)], 0) == [False]
    assert better([Pair(sure.b, sure.a, higher_is_better=False)], 0) == [True]


def test_not_worse_and_equal_within_include_their_margin():
    below, above = (Pair(seeds(*(v + d for v in DENSE)), seeds(*DENSE)) for d in (-0.5, 0.75))
    assert not_worse([below, above], 0.5) == [True, True]
    assert not_worse([below, above], 0.25) == [False, True]
    assert equal_within([below, above], 0.5) == [True, False]
    assert equal_within([below, above], 0.75) == [True, True]


def test_matches_allows_the_larger_standard_deviation():
    dense = seeds(9.0, 10.0, 11.0)  # std 1
    assert matches([Pair(seeds(9.0, 9.0, 9.0), dense), Pair(seeds(8.9, 8.9, 8.9), dense)], 0) == [True, False]


def test_gap_grows_compares_every_density_with_the_highest():
    zero = seeds(0.0, 0.0, 0.0)
    leads = [Pair(seeds(*values), zero) for values in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [1.0, 2.0, 9.0])]
    assert gap_grows(leads, 0) == [True, False]  # 3, 3, 3 more; then 0, 0, 6 more: mean 2, interval far beyond
    assert gap_grows(leads, 3) == [False, False]
    fewer = Pair(seeds(4.0, 5.0), seeds(0.0, 0.0))
    assert Pair.of(fewer.leads, leads[0].leads).leads == {0: 3.0, 1: 3.0}


def test_pairs_are_of_common_seeds():
    assert Pair.of({0: 1.0, 1: 5.0}, {1: 3.0, 2: 0.0}).leads == {1: 2.0}


# verdicts


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
    assert (only(records, needs=speed, of=["ticket", "two"]).verdict, only(records, needs=speed, of=["ticket", "two"]).seeds) == \
        ("not run", 0)


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
    place = claims.Place(task="tasks/cnn_cifar", data="digits", protocol="smoke", densities=[0.5])
    other = place.model_copy(update={"overrides": ["train.optimizer=adam"]})
    identity = open_task(place.setting()).identity()
    made = SimpleNamespace(identity=SimpleNamespace(task="cnn_cifar", task_version=1, protocol="smoke", config=identity))
    assert "optimizer" not in identity["train"]
    assert claims._fits(made, place)
    assert not claims._fits(made, other)


def test_commands_say_mappings_as_hydra_reads_them():
    place = claims.Place(task="tasks/cnn_cifar", data="digits", protocol="smoke", densities=[0.5])
    selection = claims.Selection(method="imp_by_kind", options={"rates": {"conv": 0.2, "head": 0.1}})
    (command,) = claims._commands(place, [selection], 1)
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
    assert "not run: 2 of 3 seeds" in claims.render([verdict])
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
    assert (verdict.verdict, verdict.where, verdict.note) == ("reproduced", "toy · points · mlp · smoke, train.lr=0.2",
                                                              "points, JPEG copy")


def test_only_records_that_went_through_the_densities_of_the_command_count():
    places = [{**CLAIM["places"][0], "densities": [0.2]}]  # the command asks for 0.5 and 0.2
    records = [*both([80.0] * 3, [70.0] * 3, density=0.2), *both([1.0] * 3, [90.0] * 3, density=0.2, rounds=[])]
    assert only(records, places=places).verdict == "reproduced"
    alone = [{**places[0], "overrides": ["densities=[0.2]"]}]
    assert only(records, places=alone).verdict == "not reproduced"
    assert only(both([80.0] * 3, [70.0] * 3, density=0.2, rounds=[{"weights": 0.4}]), places=places).seeds == 0


def test_a_place_may_need_something_else():
    place = {**CLAIM["places"][0], "needs": {name: {**selection, "options": {"rewind": "1ep"}}
                                             for name, selection in CLAIM["needs"].items()}}
    here, there = judged(both([80.0] * 3, [70.0] * 3, rewind="1ep"), places=[*CLAIM["places"], place])
    assert (here.verdict, there.verdict) == ("not run", "reproduced")


def test_commands_make_what_is_missing_and_are_joined():
    needs = {**CLAIM["needs"], "random": {"method": "imp", "options": {"rewind": "init"}, "control": "shuffle"}}
    verdicts = [only([]), only([], id="other", needs=needs, min_seeds=4)]
    assert [str(c) for c in verdicts[0].run] == [
        f"bench run {TOY} data=points protocol=smoke method=imp method.rewind=init 'controls=[random]' 'seeds=[0,1,2]'"]
    assert claims._missing(verdicts).keys() == {claims.Command(verdicts[0].run[0].words, frozenset({"random", "shuffle"}), 4)}


def test_its_commands_make_exactly_the_records_a_claim_needs(tmp_path):
    (command,) = only([]).run
    words = shlex.split(str(command))
    assert main([*words[1:], "threads=1", f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}"]) == 0
    verdict = only(read_records(tmp_path / "runs"))
    assert (verdict.seeds, verdict.verdict == "not run") == (3, False)


# entries


@pytest.mark.parametrize(("changes", "says"), [
    ({"statment": "x"}, "claims.0.statment: Extra inputs are not permitted"),
    ({"expect": "beter"}, "unknown predicate 'beter'; did you mean better?"),
    ({"needs": {**CLAIM["needs"], "random": {"method": "imp", "control": "randm"}}},
     "unknown control 'randm'; did you mean random"),
    ({"of": ["ticket", "rnd"]}, "unknown selection 'rnd'; did you mean random?"),
    ({"of": ["ticket", "dense"]}, "selection random is not compared"),
    ({"min_seeds": 2}, "claims.0.min_seeds: Input should be greater than or equal to 3"),
    ({"expect": "matches", "margin": 1.0}, "matches takes no margin"),
    ({"expect": "gap_grows"}, "gap_grows needs two densities"),
    ({"places": []}, "claims.0.places: List should have at least 1 item"),
])
def test_a_flaw_in_an_entry_is_one_line_that_names_the_file(tmp_path, changes, says):
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump({"paper": "P", "claims": [{**CLAIM, **changes}]}))
    with pytest.raises(UsageError) as error:
        claims.read(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(("changes", "says"), [
    ({"needs": {**CLAIM["needs"], "ticket": {"method": "impp"}}}, "unknown method 'impp'; did you mean imp"),
    ({"needs": {**CLAIM["needs"], "ticket": {"method": "imp", "options": {"rewnd": "init"}}}},
     "unknown option of imp 'rewnd'; did you mean rewind"),
    ({"places": [{**CLAIM["places"][0], "densities": [0.3]}]}, "density 0.3 is not among those that"),
    ({"places": [{**CLAIM["places"][0], "data": "pints"}]}, "unknown data 'pints'; did you mean points?"),
    ({"places": [{**CLAIM["places"][0], "overrides": ["train.lrr=1"]}]}, "unknown key 'train.lrr'"),
])
def test_a_place_that_cannot_be_run_is_one_line_that_names_the_claim(changes, says):
    with pytest.raises(UsageError) as error:
        judged([], **changes)
    message = str(error.value)
    assert message.startswith("claim ticket-beats-random: ")
    assert says in message
    assert "\n" not in message


def test_no_claims_damaged_yaml_and_ids_given_twice_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no claims"):
        claims.read(tmp_path)
    (tmp_path / "a.yaml").write_text("paper: [")
    with pytest.raises(UsageError, match=r"a\.yaml is not readable YAML"):
        claims.read(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"paper": "P", "claims": [CLAIM]}))
    with pytest.raises(UsageError, match=r"two claims below .* have id ticket-beats-random"):
        claims.read(tmp_path)


# the page


def test_the_page_repeats_to_the_byte_in_whatever_order_records_come():
    records = both([80.0, 81.0, 82.0], [70.0, 71.5, 72.0])
    page = claims.render(judged(records))
    assert claims.render(judged(records[::-1])) == page
    assert page.startswith("<!-- generated by `bench claims`, do not edit -->")
    assert "1 claims, 1 verdicts: **1 reproduced**, **0 not reproduced**, **0 not run**." in page
    assert re.search(r"\| A &amp; B 2020 +\| 1 +\| 1 +\| 0 +\| 0 ", page)  # how the paper fared
    assert "## A &amp; B 2020" in page
    assert "Not run at" not in page
    assert "Not run at:\n\n- ticket-beats-random: toy · points" in claims.render(judged([]))


def test_the_command_writes_checks_and_notices_edits(tmp_path, capsys):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "p.yaml").write_text(yaml.safe_dump({"paper": "P", "claims": [CLAIM]}))
    for made in both([80.0, 81.0, 82.0], [70.0, 71.0, 72.0]):
        write_record(made, tmp_path / "records")
    assert main(["claims", "--check", "--root", str(tmp_path)]) == 1  # nothing written yet
    capsys.readouterr()
    assert main(["claims", "--json", "--root", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["verdict"], row["seeds"]) == ("ticket-beats-random", "reproduced", 3)
    assert main(["claims", "--check", "--root", str(tmp_path)]) == 0
    ledger = tmp_path / "claims.md"
    ledger.write_text(ledger.read_text().replace("81.00", "83.00"))
    assert main(["claims", "--check", "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert any(line.startswith("-") and "83.00" in line for line in printed.out.splitlines())
    assert "run `bench claims`" in printed.err


def test_the_entries_of_this_repository_can_all_be_run():
    papers = claims.read(LEADERBOARDS / "claims")
    assert {v.verdict for v in claims.judge(papers, [])} == {"not run"}  # every place composes, every option is known


# readings of analyses

SPREADS = '''
from pruning.metadata import analysis


@analysis(keys=("start", "density"))
def spreads(lab, densities, factor=1.0):
    """Numbers of the seed."""
    for step in ("0it", "1ep"):
        yield {"start": step, "density": densities[0]["weights"], "spread": factor * (3.0 + lab.seed if step == "0it" else 1.0)}
'''


def reading(path, start, **options):
    """The spread at a start."""
    return {"analysis": f"{path}:spreads", "options": options, "row": {"start": start, "density": 0.5}, "value": "spread"}


def measured(tmp_path, capsys, command, needs, **changes):
    """The verdict on readings of what ``command`` made."""
    place = {"task": TOY, "data": "points", "protocol": "smoke", "overrides": []}
    claim = {**CLAIM, "needs": needs, "of": list(needs), "places": [place], **changes}
    local = [f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}"]
    if command:
        assert main([*command, *local]) == 0
        capsys.readouterr()
    (verdict,) = claims.judge([claims.Paper(paper="A", claims=[claim])], [], read_analyses(tmp_path / "runs"))
    return verdict


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


@pytest.mark.parametrize(("needs", "changes", "says"), [
    ({"a": "0it", "dense": "1ep"}, {}, "must not redefine dense"),
    ({"a": "0it", "b": "1ep"}, {"places": [{"task": TOY, "data": "points", "protocol": "smoke", "densities": [0.5]}]},
     "at no densities"),
    ({"a": {"number": 1}, "b": {"number": 2}}, {}, "one number with another says nothing"),
    ({"a": {"method": "imp", "value": "training"}, "b": {"method": "imp"}}, {}, "the same cost"),
    ({"a": {"method": "imp", "value": "training"}}, {"of": ["a", "dense"]}, "the same cost"),
    ({"a": {"method": "imp"}, "b": {"method": "imp", "control": "random"}}, {}, "names the densities"),
    ({"a": "0it", "b": {"method": "imp"}}, {}, "a reading is compared with another")])
def test_sides_that_cannot_be_compared_are_refused(tmp_path, capsys, needs, changes, says):
    path = tmp_path / "mine.py"
    path.write_text(SPREADS)
    sides = {name: reading(path, side) if isinstance(side, str) else side for name, side in needs.items()}
    with pytest.raises(ValueError, match=says):
        measured(tmp_path, capsys, None, sides, **changes)


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
