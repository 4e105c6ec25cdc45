"""The specification as data: complete, exact, and able to tell every mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import need

pytest.importorskip("hypothesis")

from vgf import spec
from vgf.backends import get_backend
from vgf.checker.alternatives import library, library_for
from vgf.checker.vectors import SCHEMA, make_vectors, read_vectors, run_vector, slug, write_vectors
from vgf.cli import main
from vgf.testing import SUBJECTS
from vgf.testing.variants import VARIANTS

CONSUMERS = Path(__file__).parents[2] / "validation" / "consumers"
# The largest, which take minutes to make.
WHOLE = ("update", "act", "operate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("vectors")
    write_vectors(place, ["td_target", "bandwidth_squared"])
    return place


@pytest.mark.full
def test_files_follow_their_schema_and_carry_the_version(folder):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads((folder / "schema.json").read_text()) == SCHEMA
    index = json.loads((folder / "index.json").read_text())
    assert index["specification"] == spec.__version__
    for name in index["equations"]:
        document = json.loads((folder / f"{name}.json").read_text())
        jsonschema.validate(document, SCHEMA)
        assert document["specification"] == spec.__version__
        assert {f for v in document["vectors"] for f in v["flags"]} <= index["flags"].keys()
    document["vectors"][0]["tolerance"].pop("float32")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def exposed_and_exact(vectors):
    """Whether the specification passes every vector, and each flagged mistake fails it."""
    known = {slug(name): v for name, v in library().items()}
    for vector in vectors:
        assert not vector.fails(run_vector(vector)), vector.id
        for flag in vector.flags:
            with np.errstate(all="ignore"):
                wrong = run_vector(vector, variants=(known[flag],))
            assert vector.fails(wrong), f"{vector.id} does not expose {flag}"


def test_flags_name_the_mistakes_that_a_vector_exposes(folder):
    vectors = list(read_vectors(folder))
    exposed_and_exact(vectors)
    flags = {f for v in vectors if v.equation == "td_target" for f in v.flags}
    assert flags >= {slug(name) for name, v in VARIANTS.items() if v.method == "td_target"}
    assert "first-two-of-the-ensemble" in flags


def test_a_spoiled_result_fails(folder):
    vector = next(read_vectors(folder, ["td_target"]))
    assert vector.fails(vector.result + 1e-6)
    assert not vector.fails(vector.result + 1e-6, "float32") or np.max(vector.result) < 1
    assert "shape" in vector.fails(vector.result[:0])


@pytest.mark.backend(["numpy", "torch", "jax"], ["float64", "float32"])
@pytest.mark.full
def test_no_right_implementation_fails(backend, folder):
    for vector in read_vectors(folder):
        assert not vector.fails(run_vector(vector, backend), backend.dtype), vector.id


@pytest.mark.full
def test_consumers_in_two_languages(tmp_path):
    write_vectors(tmp_path, ["phi"])
    programs = {"phi.py": [sys.executable, "-I"]}
    node = shutil.which("node")
    if node:
        programs["phi.mjs"] = [node]
    elif os.environ.get("CI"):
        pytest.fail("node is needed for the consumer in JavaScript")
    for name, command in programs.items():
        run = lambda file, command=command: subprocess.run(
            [*command, str(file), str(tmp_path)], capture_output=True, text=True
        )
        done = run(CONSUMERS / name)
        assert done.returncode == 0, done.stdout + done.stderr
        text = (CONSUMERS / name).read_text()
        for right, wrong in (("+ repel", "- repel"), ("n + 1", "n + 2")):
            assert right in text
            spoiled = tmp_path / name
            spoiled.write_text(text.replace(right, wrong))
            done = run(spoiled)
            assert done.returncode == 1, f"{name} with {wrong} passes"
            assert "and exposes" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)  # whole transports are minutes of trials
@pytest.mark.parametrize("name", [name for name in SUBJECTS if name not in WHOLE])
def test_every_equation_has_vectors_that_expose_its_mistakes(name):
    vectors = make_vectors(name)
    assert vectors
    exposed_and_exact(vectors)
    flags = {flag for vector in vectors for flag in vector.flags}
    own = {slug(key) for key, v in VARIANTS.items() if v.method == name and v.equation == name}
    assert own <= flags, own - flags
    assert flags <= {slug(key) for key in library_for(name)}
    need("torch")
    for dtype in ("float64", "float32"):
        backend = get_backend("torch", dtype=dtype, device="cpu")
        for vector in vectors:
            wrong = vector.fails(run_vector(vector, backend), dtype)
            assert not wrong, f"{vector.id} on torch {dtype}: {wrong}"


def test_the_command(tmp_path, capsys):
    assert main(["vectors", str(tmp_path / "v"), "--only", "project"]) == 0
    assert f"specification {spec.__version__}" in capsys.readouterr().out
    assert main(["vectors", str(tmp_path / "v"), "--only", "nothing"]) == 2
