"""What a task or a method gives back is checked where it enters: converted, or one line that names the culprit."""

import shutil

import pytest

from ..conftest import TOY

METRICS = 'return {"accuracy": 100 * (logits.argmax(1) == y).double().mean().item(), "loss": F.cross_entropy(logits, y).item()}'
LOSS, MACS = "return F.cross_entropy(model(batch[0]), batch[1])\n\n    def evaluate", "return sum(size * density"


def task(tmp_path, old, new):
    """The toy task with a line changed."""
    folder = shutil.copytree(TOY, tmp_path / "mine")
    source = (folder / "task.py").read_text()
    assert old in source
    (folder / "task.py").write_text("import numpy as np\n" + source.replace(old, new))
    return str(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (METRICS, 'return {"accuracy": np.float32(50), "loss": F.cross_entropy(logits, y)}'),
        (METRICS, 'return {"accuracy": np.array(50), "loss": np.int64(3)}'),
        (MACS, "return np.float64(1) * sum(size * density"),
        (MACS, "return torch.tensor(1.0) * sum(size * density"),
    ],
)
def test_numbers_of_any_library_are_taken(bench, tmp_path, old, new):
    mine = task(tmp_path, old, new)
    assert bench.run("method=one_shot", "densities=[0.5]", "train.validate_every=1", task=mine) == 0
    assert bench("test", mine) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (METRICS, 'return {"accuracy": logits}', "the metric accuracy of val from Toy.evaluate is no number"),
        (METRICS, 'return {"accuracy": "high"}', "the metric accuracy of val from Toy.evaluate is no number: 'high'"),
        (METRICS, 'return {"accuracy": None}', "the metric accuracy of val from Toy.evaluate is no number: None"),
        (METRICS, 'return {"loss": 1.0}', "evaluate of Toy must give a dict of numbers by name, accuracy among them"),
        (METRICS, "return 50.0", "evaluate of Toy must give a dict of numbers"),
        (MACS, 'return "many" or sum(size * density', "what Toy.macs gives is no number: 'many'"),
        (LOSS, LOSS.replace("])\n", '], reduction="none")\n', 1), "Toy.loss must give a scalar tensor with a gradient"),
        (LOSS, LOSS.replace("\n", ".item()\n", 1), "Toy.loss must give a scalar tensor with a gradient"),
    ],
)
def test_what_is_none_is_one_line_and_broken(bench, tmp_path, old, new, message):
    mine = task(tmp_path, old, new)
    assert message in bench.fails("method=dense", task=mine)
    assert bench("test", mine, "--json") == 1
    assert message in bench.out


@pytest.mark.parametrize(
    ("ticket", "message"),
    [
        ("3", "it must yield pruning.Ticket"),
        ("Ticket(density, dict(masks), start)", "it must yield pruning.Ticket"),
        ("Ticket(density, masks, 'init')", "it must yield pruning.Ticket"),
        ("Ticket({'weights': 'half'}, masks, start)", "the density of weights that method"),
        ("Ticket(density, Masks({}, {}), start)", "is on one side only"),
        ("Ticket(density, masks, start, notes={'x': {1, 2}})", "notes of method"),
        ("Ticket(density, masks, start, notes={'x': float('nan')})", "notes of method"),
    ],
)
def test_tickets(bench, tmp_path, trainings, ticket, message):
    path = tmp_path / "mine.py"
    path.write_text(f"""
import numpy as np
from pruning import Masks, Ticket
def pick(lab, densities):
    start, masks = lab.start("init"), lab.ones()
    for density in densities:
        masks = lab.allocate(lab.score("random", start, masks), masks, density)
        yield {ticket}
""")
    assert message in bench.fails(f"method={path}:pick", "densities=[0.5]")
    assert not trainings  # told before the dense network is trained


def test_notes_and_densities_of_numpy(bench, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("""
import numpy as np
from pruning import Ticket
def pick(lab, densities):
    for density in densities:
        masks = lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), density)
        yield Ticket({"weights": np.float64(0.5)}, masks, lab.start("init"), notes={"x": np.int64(3), "y": (np.float32(0.5),)})
""")
    assert bench.run(f"method={path}:pick", "densities=[0.5]") == 0
    (made,) = [r for r in bench.records() if r.identity.method != "dense"]
    assert made.ticket.notes == {"x": 3, "y": [0.5]}
