"""From command lines to settings: grids, sugar, plug-ins, and what is refused before anything is trained."""

import inspect
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import registry
from bench.config import densities, settings
from bench.errors import BenchError, UsageError
from bench.machine import _idle_cores, threads, workers
from tests.conftest import TOY

MINE = '''
from pruning import Ticket

def pick(lab, densities, first=0.6, score="magnitude"):
    """Mine."""
    scores = lab.score(score, lab.start("init"), lab.ones())
    for density in densities:
        yield Ticket(density, lab.allocate(scores, lab.ones(), density), lab.start("init"))

def signed(model, maskables, data):
    parameters = dict(model.named_parameters())
    return {m.name: parameters[m.name].detach() for m in maskables}
'''


@pytest.fixture
def mine(tmp_path) -> Path:
    """A file with a method and a score."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def values(grid, *keys):
    """The values of dotted keys in every setting."""
    found = []
    for setting in grid:
        at = []
        for key in keys:
            node = setting.config
            for part in key.split("."):
                node = node[part]
            at.append(node)
        found.append(tuple(at))
    return found


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_has_a_sentence_and_a_meaning_for_every_option(name):
    function = registry.method(name)
    assert registry.documentation("methods", name) == inspect.getdoc(function)
    meanings = registry.meanings(function)
    assert [option for option, meaning in meanings.items() if not meaning] == []
    assert meanings.items() <= registry.written_meanings(name).items()  # read from the file, not imported


def test_a_task_has_defaults_of_its_own_for_a_method(tmp_path):
    folder = tmp_path / "task"
    shutil.copytree(TOY, folder)
    with (folder / "config.yaml").open("a") as file:
        file.write(
            'method_defaults: {imp: {rate: 0.3, scheme: "${data.name}"}, gmp: {scheme: "${data.scheme}"}}\n'
            "data: {name: uniform, scheme: erk}\n"
        )
    ours, theirs = settings(str(folder), ["method=[imp,one_shot]"]), settings(TOY, ["method=[imp,one_shot]"])
    assert [s.config["method"] for s in ours] == [
        {**theirs[0].config["method"], "rate": 0.3, "scheme": "uniform"},
        theirs[1].config["method"],
    ]
    assert "method_defaults" not in ours[0].config
    assert settings(TOY, ["method=[imp,one_shot]"])[0].config == theirs[0].config  # and leaves nothing to other tasks
    assert settings(str(folder), ["method.rate=0.1"])[0].config["method"]["rate"] == 0.1
    assert [settings(task, ["method=gmp"])[0].config["method"]["scheme"] for task in (str(folder), TOY)] == ["erk", "uniform"]


@pytest.mark.parametrize(
    ("words", "keys", "expected"),
    [
        ([], ["method.name", "data.name", "seeds"], [("imp", "points", [0])]),
        (["method=[dense,imp]"], ["method.name"], [("dense",), ("imp",)]),
        (["method=dense,imp"], ["method.name"], [("dense",), ("imp",)]),
        (
            ["data=[points,broken]", "method=[one_shot,imp]"],
            ["data.name", "method.name"],
            [("points", "one_shot"), ("points", "imp"), ("broken", "one_shot"), ("broken", "imp")],
        ),
        (["method.rewind=init,1ep"], ["method.rewind"], [("init",), ("1ep",)]),
        (
            ["train.lr=0.1,0.2", "densities=[0.5],[0.4,0.1]"],
            ["train.lr", "densities"],
            [(0.1, [0.5]), (0.1, [0.4, 0.1]), (0.2, [0.5]), (0.2, [0.4, 0.1])],
        ),
        (["model=deep"], ["model.name", "model.width"], [("deep", 16)]),
        (["model=[mlp,deep]"], ["model.name"], [("mlp",), ("deep",)]),
        (["protocol=long"], ["train.epochs"], [(6,)]),
        (["protocol=long", "train.epochs=2"], ["train.epochs"], [(2,)]),
        (["densities=0.5"], ["densities"], [(0.5,)]),
        (["train.clip_norm=null"], ["train.clip_norm"], [(None,)]),
        (["densities={weights: 0.5, edges: [0.9, 0.8]}"], ["densities"], [({"weights": 0.5, "edges": [0.9, 0.8]},)]),
        (["+train.extra=7"], ["train.extra"], [(7,)]),
    ],
)
def test_grids(words, keys, expected):
    assert values(settings(TOY, words), *keys) == expected


def test_protocol_is_known():
    assert [s.protocol for s in settings(TOY, ["protocol=[smoke,long]"])] == ["smoke", "long"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (0.5, [{"weights": 0.5}]),
        ([0.2, 0.5, 1], [{"weights": 1.0}, {"weights": 0.5}, {"weights": 0.2}]),
        ({"weights": [0.5, 0.2], "edges": [0.9, 0.8]}, [{"weights": 0.5, "edges": 0.9}, {"weights": 0.2, "edges": 0.8}]),
        ({"weights": [0.5, 0.2], "edges": 0.9}, [{"weights": 0.5, "edges": 0.9}, {"weights": 0.2, "edges": 0.9}]),
        ({"weights": [0.5], "edges": None}, [{"weights": 0.5}]),
        ({"edges": 0.5}, [{"edges": 0.5}]),
    ],
)
def test_densities(asked, expected):
    assert densities(asked, ["weights", "edges"]) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (0, r"density 0 of weights must be a number in \(0, 1\]"),
        (1.5, r"density 1.5 of weights"),
        (-0.5, "density -0.5"),
        ([0.5, "abc"], "density 'abc' of weights"),
        (True, "density True"),
        (float("nan"), "density nan"),
        ({"wieghts": 0.5}, "unknown budget 'wieghts'; did you mean weights"),
        ({}, "no densities asked"),
        (None, "no densities asked"),
        ([0.5, 0.2, 0.5], "density 0.5 of weights is asked twice"),
        ({"weights": [0.5, 0.4], "edges": [0.9, 0.8, 0.7]}, "densities.weights has 2 entries, another budget 3"),
    ],
)
def test_densities_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        densities(asked, ["weights", "edges"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=imq"], "unknown method 'imq'; did you mean imp"),
        (["data=point"], "unknown data 'point'; did you mean points"),
        (["protocol=smoky"], "unknown protocol 'smoky'; did you mean smoke"),
        (["train.epoch=3"], "unknown key 'train.epoch'; did you mean train.epochs"),
        (["epochs=3"], "unknown key 'epochs'; did you mean train.epochs"),
        (["densitys=[0.5]"], "unknown key 'densitys'; did you mean densities"),
        (["method.scor=random"], "unknown key 'method.scor'; did you mean method.score"),
        (["method.score=magnitud"], "unknown score 'magnitud'; did you mean magnitude"),
        (["controls=[shufle]"], "unknown control 'shufle'; did you mean shuffle"),
        (["method.schedule=hole"], "unknown schedule 'hole'; did you mean whole"),
        (["method.scheme=globl"], "unknown scheme 'globl'; did you mean global"),
        (["seeds=3"], r"seeds must be a list of whole numbers, such as \[0\]"),
        (["seeds=[]"], r"seeds=\[\] must be a list of whole numbers"),
        (["seeds=[a]"], "seeds must be a list of whole"),
        (["seeds=[-1]"], r"seeds=\[-1\] must be a list"),
        (["train.epochs=abc"], "train.epochs must be a whole number, such as 3"),
        (["jobs=two"], "jobs must be a whole number or auto"),
        (["controls=random"], "controls must be a list"),
        (["seeds=null"], "must set seeds, which is missing or null"),
        (["method=[]"], r"method=\[\] leaves nothing to run"),
        (["~controls"], "cannot leave out controls"),
        (["method"], "options are written key=value"),
        (["densities=[0.5"], "options are written key=value"),
        (["densities.weights=0.5"], "densities is one list here"),
        (["method=nowhere.py:pick"], "no file nowhere.py to take the method pick from"),
        (["method=nowhere.py"], "say which function of the file is the method: nowhere.py:NAME"),
        (["densities=[0.5,0]"], r"density 0 must be a number in \(0, 1\]"),
        (["densities=[1.5]"], "density 1.5 must be"),
        (["densities=[abc]"], "density 'abc' must be"),
        (["densities={weights: [2]}"], r"density 2 must be a number in \(0, 1\]"),
        (["train.lr=-1"], "train.lr=-1 must be above 0"),
        (["threads=0"], "threads=0 must be above 0"),
        (["train.epochs=0"], "train.epochs=0 must be above 0"),
    ],
)
def test_refused_in_one_line(bench, words, message):
    with pytest.raises(UsageError, match=message):
        settings(TOY, words)
    bench.refuses(*words)


@pytest.mark.parametrize("path", sorted(Path("tasks").glob("*/protocol/*.yaml")), ids=lambda p: f"{p.parts[1]}-{p.stem}")
def test_every_protocol_composes(path):
    assert (
        settings(
            f"tasks/{path.parts[1]}",
            [f"protocol={path.stem}", *(["data.folder=here"] if path.parts[1] == "cnn_imagenet" and path.stem == "desk" else [])],
        )[0].protocol
        == path.stem
    )


def test_budgets_and_values_that_are_missing_are_named():
    with pytest.raises(UsageError, match="unknown budget 'weight'; did you mean weights"):
        settings("tasks/gcn_planetoid", ["densities.weight=0.5"])
    with pytest.raises(UsageError, match=r"data.folder has no default: give data.folder=..."):
        settings("tasks/cnn_imagenet", ["data=folder"])


def test_hints_name_no_node_that_an_earlier_command_added(mine):
    assert settings(TOY, [f"method={mine}:pick"])
    for method in registry.METHODS:
        assert settings(TOY, [f"method={method}"])
    assert "outside" not in str(refusal("method=imq"))


def test_unknown_task(bench, tmp_path):
    assert "unknown task 'tasks/cnn_cifra'; did you mean tasks/cnn_cifar" in bench.refuses(task="tasks/cnn_cifra")
    assert "without config.yaml, so it is no task" in bench.refuses(task=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.yaml", "train:\n", "train: [\n", "the configuration of mine does not compose"),
        ("config.yaml", "  - data: points\n", "", "must set data.name, which is missing or null"),
        ("config.yaml", "adapter:", "adopter:", "must set task.adapter, which is missing or null"),
        ("config.yaml", "densities: [0.5, 0.2]", "", "densities has no default: give densities=..."),
        ("config.yaml", "densities: [0.5, 0.2]", "densities: [0.5]\npattern: 2:4", 'needs quotes there: pattern: "2:4"'),
        ("data/points.yaml", "name: points", "name: *points", "the configuration of mine does not compose"),
    ],
)
def test_a_broken_task_folder(bench, tmp_path, name, old, new, message):
    folder = shutil.copytree(TOY, tmp_path / "mine")
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert message in bench.refuses(task=str(folder))


def test_a_pattern_in_a_file_and_on_the_command_line(bench, tmp_path):
    folder = shutil.copytree(TOY, tmp_path / "mine")
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("densities: [0.5, 0.2]", 'densities: [0.5]\npattern: "2:4"'))
    said = [[], ["pattern=2:4"], ["pattern='2:4'"], ['pattern="2:4"']]
    assert {settings(str(folder), words)[0].config["pattern"] for words in said} == {"2:4"}
    assert 'needs quotes there: pattern: "2:4"' in bench.refuses("pattern=124")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("task:Tool", "task.py has no Tool, which config.yaml names as the adapter"),
        ("tusk:Toy", "says its adapter is tusk:Toy, but there is no such module"),
    ],
)
def test_an_adapter_that_is_not_there(bench, reference, message):
    assert message in bench.fails(f"task.adapter='{reference}'")


def test_a_method_and_a_score_from_a_file(bench, mine):
    assert bench.run(f"method={mine}:pick", "method.first=0.7", f"method.score={mine}:signed", "densities=[0.5]") == 0
    ticket = next(r for r in bench.records() if r.identity.densities)
    assert ticket.identity.method == f"{mine}:pick"
    assert ticket.identity.method_config == {"first": 0.7, "score": f"{mine}:signed"}
    assert ticket.label == f"pick(first=0.7, score={mine}:signed)"
    assert ticket.cost.search_steps == 0
    assert f"unknown function of {mine} 'pack'; did you mean pick" in str(refusal(f"method={mine}:pack"))
    assert "unknown key 'method.last'" in str(refusal(f"method={mine}:pick", "method.last=1"))
    other = mine.with_name("other.py")
    other.write_text("import nothing_of_the_sort\n")
    assert "other.py cannot be imported: ModuleNotFoundError" in str(refusal(f"method={other}:pick"))


def refusal(*words):
    """The error."""
    with pytest.raises(BenchError) as error:
        settings(TOY, words)
    return error.value


def test_entry_points(monkeypatch, tmp_path, mine):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_task").mkdir()
    shutil.copytree(TOY, tmp_path / "their_task", dirs_exist_ok=True)
    (tmp_path / "their_task" / "__init__.py").write_text("")
    points = [
        EntryPoint("theirs", "mine:pick", "bench.methods"),
        EntryPoint("sign", "mine:signed", "bench.scores"),
        EntryPoint("their_task", "their_task", "bench.tasks"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    (setting,) = settings("tasks/their_task", ["method=theirs", "method.score=sign"])
    assert setting.folder == tmp_path / "their_task"
    assert setting.config["method"] == {"name": "theirs", "first": 0.6, "score": "sign"}
    assert "theirs" in registry.names("methods")
    assert "sign" in registry.names("scores")
    assert registry.adapter(setting.folder, "task:Toy").__name__ == "Toy"


def test_two_task_folders_of_one_name(tmp_path):
    made = []
    for home in ("one", "two"):
        folder = shutil.copytree(TOY, tmp_path / home / "toy")
        path = folder / "task.py"
        path.write_text(path.read_text().replace("Generated points.", home))
        made.append(registry.adapter(folder, "task:Toy").note)
    assert made == ["one", "two"]


def test_a_record_says_the_command_that_makes_it():
    (setting,) = settings(
        TOY,
        [
            "method=imp",
            "densities=[0.5, 0.2]",
            "method.rewind=1ep",
            "seeds=[0,1,2]",
            "store=/s",
            "runs=/r",
            "jobs=2",
            "threads=1",
            "device=cpu",
        ],
    )
    assert setting.command(2) == f"bench run {TOY} method=imp 'densities=[0.5, 0.2]' method.rewind=1ep 'seeds=[2]'"


ODD = [
    "[]",
    "[[]]",
    "[[1]]",
    "[0]",
    "[true]",
    "[null]",
    "[abc]",
    "{}",
    "{a: 1}",
    "true",
    "null",
    "''",
    "nan",
    "1e400",
    "-1",
    "0",
    "0.5",
    "1" + 30 * "0",
    "'a\nb'",
    "é☃",
    "abc",
]


@pytest.mark.parametrize("odd", ODD)
def test_any_value_of_any_key_composes_or_is_refused_in_one_line(odd):
    (setting,) = settings(TOY, [])
    keys = [f"{at}.{key}" for at, node in setting.config.items() if isinstance(node, dict) for key in node] + list(setting.config)
    for key in keys[ODD.index(odd) % 3 :: 3]:  # all pass, in a minute
        try:
            (made,) = settings(TOY, [f"++{key}={odd}"])
        except UsageError as error:
            if "\n" in str(error):
                raise
            continue
        assert type(made.config["seeds"][0]) is int
        assert all(type(control) is str for control in made.config["controls"])


@pytest.mark.parametrize(
    "words",
    [
        ["controls=[0]"],
        ["controls=[[]]"],
        ["controls=[true]"],
        ["controls=[null]"],
        ["seeds=[true]"],
        ["seeds=[[0]]"],
        ["seeds=[0.5]"],
        ["densities=[[0.5]]"],
        ["densities=[true]"],
        ["densities={weights: [[0.5]]}"],
        ["train={epochs: [1]}"],
        ["++seeds=3"],
        ["++train.epochs=null"],
        ["method.score=[magnitude]"],
        ["method.rate=abc"],
        ["method.rate=[0.5]"],
        ["+method.extra=1"],
        ["method=imp_by_kind", "method.rates={linear: high}"],
        ["method=transfer", "method.through=[[0.5]]"],
        ["data.root=[a]"],
        ["model.width=null"],
        ["train.optimizer=1"],
        ["train.clip_norm=abc"],
        ["method.rewind=null"],
    ],
)
def test_every_value_is_of_its_keys_kind(bench, words):
    bench.refuses(*words)


@pytest.mark.parametrize(
    ("jobs", "said", "cores", "gigabytes", "gpu", "launched", "expected"),
    [
        (6, "auto", 4, 64, False, 1, 4),
        (2, "auto", 4, 64, False, 1, 2),
        (1, "auto", 4, 64, False, 1, 1),
        (6, "auto", 4, 11, False, 1, 2),
        (6, "auto", 4, 1, False, 1, 1),
        (6, "auto", 4, 64, True, 1, 1),
        (6, "auto", 4, 64, False, 2, 1),
        (1, 3, 4, 1, True, 1, 3),
    ],
)
def test_a_grid_is_spread_over_cores_as_far_as_there_are_jobs_and_memory(
    jobs, said, cores, gigabytes, gpu, launched, expected, monkeypatch
):
    monkeypatch.setattr("bench.machine._cores", lambda: cores)
    monkeypatch.setattr("bench.machine._has_gpu", lambda: gpu)
    monkeypatch.setattr("bench.machine.psutil.virtual_memory", lambda: SimpleNamespace(available=gigabytes * 2**30))
    monkeypatch.setenv("WORLD_SIZE", str(launched))
    config = {"jobs": said, "device": "auto", "threads": "auto", "executor": {"name": "processes"}}
    assert workers(config, jobs) == expected
    assert workers({**config, "device": "cpu"}, jobs) == (3 if said == 3 else expected if not gpu else min(jobs, cores))
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr("bench.machine._idle_cores", lambda: 3)
    assert threads({**config, "jobs": expected}) == (3 if expected == 1 else max(1, cores // expected))


@pytest.mark.parametrize(
    ("use", "expected"), [([0, 3, 99, 10], 3), ([100, 100, 100, 100], 1), ([0, 0, 0, 0], 4), ([0, 0, 0, 0, 0, 0, 0, 0], 4)]
)
def test_a_lone_process_takes_no_thread_for_a_core_that_is_busy(use, expected, monkeypatch):
    monkeypatch.setattr("bench.machine._cores", lambda: 4)
    monkeypatch.setattr("bench.machine.psutil.cpu_percent", lambda interval, percpu: use)
    _idle_cores.cache_clear()
    assert threads({"jobs": 1, "threads": "auto", "executor": {"name": "processes"}}) == expected
    _idle_cores.cache_clear()
