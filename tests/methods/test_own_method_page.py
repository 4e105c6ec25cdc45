"""The page "Your own method": its code is run as it stands, through its own commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import vgf
import vgf.methods
from vgf import cli
from vgf.runs.checkpoint import load_checkpoint
from vgf.runs.resolve import load_config
from vgf.support.rows import read_rows

PAGE = (Path(vgf.methods.__file__).parent / "README.md").read_text()
METHOD, KERNEL = re.findall(r"```python\n(.*?)```", PAGE, re.S)
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()
]
# so that a command of the page takes a moment
SHORT = shlex.split(
    "--steps 12 --batch-size 8 --log-every 4 --checkpoint-every 6 --critic-hidden 8"
)

pytestmark = pytest.mark.full("jax")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page's files are, with a file of data."""
    (tmp_path / "td3bc.py").write_text(METHOD)
    (tmp_path / "imq.py").write_text(KERNEL)
    rng, m = np.random.default_rng(0), 60
    np.savez(
        tmp_path / "data.npz",
        observations=rng.standard_normal((m, 4)).astype(np.float32),
        actions=rng.uniform(-1, 1, (m, 2)).astype(np.float32),
        rewards=rng.standard_normal(m).astype(np.float32),
        terminals=np.arange(m) % 20 == 19,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(start: str) -> list[str]:
    """The words of the page's command that begins so."""
    (line,) = [line for line in COMMANDS if line.startswith(start)]
    return shlex.split(line)[1:]


def run(words: list[str], *more: str) -> None:
    data = ["--env", "none", "--data", "data.npz", *SHORT] if words[0] == "run" else []
    assert cli.main([*words, *data, *more]) == 0


@pytest.mark.full
@pytest.mark.heavy("jax")
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float32",))
def test_its_method_trains_and_resumes(backend, folder):
    words = command("vgf run --method td3bc.py:TD3BC --cloning")
    words[words.index("--backend") + 1] = backend.name
    run(words, "--eager", "--out", "whole")
    run(words, "--eager", "--out", "split", "--steps", "6")
    config = folder / "split" / "config.toml"
    config.write_text(re.sub(r"(?m)^steps = 6$", "steps = 12", config.read_text()))
    assert cli.main(["run", "--resume", "split"]) == 0
    whole, split = (load_checkpoint(folder / name)[0] for name in ("whole", "split"))
    for name in ("critic", "actor"):
        for layer, arrays in whole[name].items():
            for key, array in arrays.items():
                np.testing.assert_array_equal(array, split[name][layer][key])
    agent = load_config(folder / "whole" / "config.toml").agent
    assert (agent.cloning, agent.actor.hidden) == (1.0, (64, 64))
    rows = read_rows(folder / "whole" / "metrics.jsonl")
    assert all(np.isfinite(row["actor_loss"]) for row in rows)
    assert rows[-1]["critic_loss"] != rows[0]["critic_loss"]


@pytest.mark.full
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float32",))
@pytest.mark.heavy("jax")
def test_its_seeds_train_side_by_side(backend, folder):
    words = command("vgf run --method td3bc.py:TD3BC --backend jax")
    words[words.index("--backend") + 1] = backend.name
    words[words.index("--seeds") + 1] = "2"
    run(words, "--actor-hidden", "8", "--eager", "--out", "several")
    ends = [load_checkpoint(folder / "several" / f"seed-{seed}")[0] for seed in (0, 1)]
    assert not np.array_equal(*(end["actor"]["output"]["kernel"] for end in ends))


@pytest.mark.full
@pytest.mark.backend(names=("torch",), dtypes=("float32",))
def test_its_kernel_is_felt(backend, folder):
    words = command("vgf run --kernel")
    for kernel, out in ((words[words.index("--kernel") + 1], "own"), ("rbf", "rbf")):
        words[words.index("--kernel") + 1] = kernel
        run(words, "--eager", "--reference-hidden", "8", "--out", out)
    ends = [load_checkpoint(folder / name)[0]["critic"] for name in ("own", "rbf")]
    assert not np.array_equal(*(end["output"]["kernel"] for end in ends))


def test_numpy_needs_a_specification(folder, capsys):
    words = command("vgf run --method td3bc.py:TD3BC --cloning")
    words[words.index("--backend") + 1] = "numpy"
    assert cli.main([*words, "--env", "none", "--data", "data.npz", *SHORT]) == 2
    assert "has no `specification`, which NumPy runs" in capsys.readouterr().err
    assert not (folder / "runs").exists() or not list((folder / "runs").iterdir())


def test_what_no_method_is(folder, capsys):
    for words, message in (
        (["--method", "td3bc.py:TD3"], "did you mean TD3BC"),
        (["--method", "absent.py:X"], "no such file"),
        (["--method", "td3bc.py:TD3BCSettings"], "must be a class derived from"),
        (["--method", "vfg"], "choose one of vgf, avgf, bc, weighted_bc, fql"),
        (["--method", "vgf", "--cloning", "1"], "--cloning"),
    ):
        assert cli.main(["run", *words]) == 2
        assert message in capsys.readouterr().err


def test_every_command_of_the_page_is_known():
    assert {shlex.split(line)[1] for line in COMMANDS} == {"run", "eval", "bench", "check"}


def test_cores_share_a_batch_only_where_a_method_says_that_they_may():
    """A method derived from ours may let states meet, whatever ours says of itself."""
    from vgf.methods import FQL, VGF, Method, Specification

    class Theirs(VGF):
        def gradients(self, eq, state, batch, noise, settings):
            return super().gradients(eq, state, batch, noise, settings)

    class Beside(Method):
        specification = type("Own", (Specification,), {"title": "own"})()

        def gradients(self, eq, state, batch, noise, settings):
            return super().gradients(eq, state, batch, noise, settings)

    class Said(Theirs):
        def states_meet(self, settings):
            return False

    settings = vgf.method_settings("vgf")
    assert [m().states_meet(settings) for m in (VGF, Theirs, Beside, Said)] == [
        False,
        True,
        True,
        False,
    ]
    assert FQL().states_meet(vgf.method_settings("fql", normalise_values=True))
    assert not FQL().states_meet(vgf.method_settings("fql"))
