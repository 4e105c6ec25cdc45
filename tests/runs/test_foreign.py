"""Checkpoints of other codes: arrays and nothing else, and what their networks compute."""

import collections
import errno
import itertools
import json
import os
import pickle
import re
import sys
import types

import numpy as np
import pytest
from needs import need

from vgf import Network, method_settings, spec
from vgf.cli import main
from vgf.runs import exchange
from vgf.runs.checkpoint import flatten, load_checkpoint
from vgf.runs.exchange import export_run, import_run
from vgf.runs.folder import open_run_folder
from vgf.runs.foreign import CODES, import_agent, read_arrays
from vgf.support.errors import VGFError

O, D = 5, 3  # noqa: E741
ENV = "pointmaze-medium-navigate-singletask-task1-v0"


# --- networks as flax names them, and what they compute ------------------------------------------


def perceptron(rng, widths, norms=0, members=None):
    """Dense_i and LayerNorm_i of random numbers, LayerNorm on the first `norms` layers."""
    lead = () if members is None else (members,)
    made = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        made[f"Dense_{i}"] = {
            "kernel": rng.standard_normal((*lead, fan_in, fan_out)) / np.sqrt(fan_in),
            "bias": rng.standard_normal((*lead, fan_out)),
        }
        if i < norms:
            made[f"LayerNorm_{i}"] = {
                "scale": 1 + 0.1 * rng.standard_normal((*lead, fan_out)),
                "bias": 0.1 * rng.standard_normal((*lead, fan_out)),
            }
    return made


def normalised(x, layer):
    unit = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return unit * layer["scale"] + layer["bias"]


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def forward(params, x, activation, after=False):
    """A perceptron's output, LayerNorm before or after its activation."""
    count = sum(key.startswith("Dense") for key in params)
    for i in range(count):
        layer, norm = params[f"Dense_{i}"], params.get(f"LayerNorm_{i}")
        x = x @ layer["kernel"] + layer["bias"]
        if i == count - 1:
            return x
        if norm is not None and not after:
            x = normalised(x, norm)
        x = activation(x)
        if norm is not None and after:
            x = normalised(x, norm)
    return x


def member(params, e):
    return {k: {n: x[e] for n, x in layer.items()} for k, layer in params.items()}


def vgf_form(networks):
    return {
        "agent": {"rng": np.zeros(2, np.uint32)}
        | {name: {"params": params, "step": np.int64(3)} for name, params in networks.items()}
    }


def fql_form(networks):
    params = {f"modules_{name}": value for name, value in networks.items()}
    return {"agent": {"network": {"params": params, "opt_state": {"0": {"count": np.int32(7)}}}}}


def agents(rng):
    """A checkpoint of each code, its networks, its flags, and how they compute."""
    flow, q, pi = (O + D + 1, 8, 6, D), (O + D, 8, 6, 1), (O + D, 8, 6, D)
    critics = {
        name: {"value_net": perceptron(rng, q, 2, 2)} for name in ("critic", "target_critic")
    }
    vgf = {**critics, "actor_bc": {"mlp": perceptron(rng, flow)}}
    found = {
        "vgf": (vgf_form(vgf), vgf, {"agent_name": "vgf", "vgf_alpha": 0.5}, relu, relu, False),
        "avgf": (
            vgf_form({**vgf, "q_grad": {"mlp": perceptron(rng, pi, 2)}}),
            vgf,
            {"agent_name": "avgf", "vgf_particles": 3, "activations": "gelu"},
            gelu,
            relu,
            False,
        ),
    }
    fql = {
        **critics,
        "actor_bc_flow": {"mlp": perceptron(rng, flow)},
        "actor_onestep_flow": {"mlp": perceptron(rng, pi)},
    }
    found["fql"] = (fql_form(fql), fql, {"agent_name": "fql", "flow_steps": 4}, gelu, gelu, True)
    qam = {
        **critics,
        "actor_fast": {"mlp": perceptron(rng, flow)},
        "actor_slow": {"mlp": perceptron(rng, flow)},
    }
    found["qam"] = (fql_form(qam), qam, {"agent_name": "qam", "best_of_n": 4}, gelu, gelu, True)
    qgf = {
        **critics,
        "policy": {
            "MLP_0": perceptron(rng, (O + D + 16, 8, 6), 1),
            "Dense_0": perceptron(rng, (6, D))["Dense_0"],
        },
        "value": {"value_net": perceptron(rng, (O, 8, 6, 1), 2)},
    }
    flags = {"agent_name": "qgf", "denoise_steps": 4, "q_aggregation": "mean"}
    found["qgf"] = (vgf_form(qgf), qgf, flags, gelu, gelu, False)
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("code", list(CODES))
def test_networks_compute_what_theirs_do(rng, code):
    tree, networks, own, of_critic, of_actor, after = agents(rng)[code]
    found = import_agent(tree, {"agent": own})
    settings, state = found.settings, found.state
    assert (found.observation_dim, found.action_dim, found.chunk) == (O, D, 1)
    assert found.critic == ("target" if code == "qgf" else "online")
    s, a, t = rng.standard_normal((4, O)), rng.standard_normal((4, D)), rng.random((4, 1))
    inputs = np.concatenate([s, a], -1)
    for name in ("critic", "target_critic"):
        theirs = networks[name]["value_net"]
        want = [forward(member(theirs, e), inputs, of_critic, after)[:, 0] for e in range(2)]
        got = spec.critic_values(state[name], s, a, settings.critic.activation)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    times, reference = t, networks[CODES[code].reference[0]]
    if code == "qgf":
        angle = t * 1e4 * np.exp(-np.log(1e4) * np.arange(8) / 8)
        times = np.concatenate([np.cos(angle), np.sin(angle)], -1)
        body = {**reference["MLP_0"], "Dense_2": reference["Dense_0"]}
    else:
        body = reference["mlp"]
    want = forward(body, np.concatenate([s, a, times], -1), of_actor, after)
    got = spec.flow_velocity(state["reference"], s, a, t, settings.reference.activation)
    # the embedding's frequencies are float32
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 if code == "qgf" else 2e-5)
    if code == "fql":
        want = forward(networks["actor_onestep_flow"]["mlp"], inputs, gelu, after)
        got = spec.policy_actions(state["policy"], s, a, settings.policy.activation)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    fresh = spec.init_state(0, O, D, settings)
    shapes = {name: x.shape for name, x in flatten(state).items()}
    assert shapes == {name: x.shape for name, x in flatten(fresh).items()}


@pytest.mark.parametrize("code", list(CODES))
def test_the_code_is_found_by_its_networks(rng, code):
    tree, *_ = agents(rng)[code]
    found = import_agent(tree)
    method = {"qam": "vgf", "qgf": "iql"}.get(code, code)
    assert found.settings.method == method


def test_settings_are_theirs(rng):
    every = agents(rng)

    def settings(code, **more):
        return import_agent(every[code][0], {"agent": {**every[code][2], **more}}).settings

    vgf = settings("vgf", train_vgf_steps=3, vgf_lr=0.02, train_q_agg="mean", bc_flow_steps=7)
    assert (vgf.budget.steps, vgf.budget.step_size, vgf.budget.temperature) == (3, 0.02, 0.5)
    assert (vgf.target_ensemble, vgf.sampling_steps) == ("mean", 7)
    assert vgf.budget.bandwidth_gradient
    assert settings("avgf").particles == 3
    assert settings("qam").particles == 4
    assert settings("qam").target_ensemble == "mean"
    qgf = settings("qgf", expectile=0.7)
    assert (qgf.target_ensemble, qgf.value_ensemble, qgf.expectile) == ("mean", "mean", 0.7)
    assert qgf.time_features == 16
    chunked = {"horizon_length": 5, "action_chunking": True}
    found = import_agent(every["qgf"][0], {"agent": {**every["qgf"][2], **chunked}})
    assert found.chunk == 5
    slow = import_agent(every["qam"][0], None, "qam", "actor_slow")
    fast = import_agent(every["qam"][0], None, "qam")
    differ = slow.state["reference"]["output"]["bias"] - fast.state["reference"]["output"]["bias"]
    assert np.abs(differ).min() > 0


@pytest.mark.parametrize(
    ("code", "own", "message"),
    [
        ("vgf", {"activations": "mish"}, "activation is 'mish'; only relu, gelu"),
        ("qam", {"edit_scale": 0.1}, "edit_scale = 0.1"),
        ("qam", {"agent_name": "dsrl"}, "agents of 'dsrl' cannot be imported"),
        ("fql", {"agent_name": "qgf"}, "has no network policy; it has critic"),
    ],
)
def test_what_cannot_be_imported(rng, code, own, message):
    tree, _, known, *_ = agents(rng)[code]
    with pytest.raises(VGFError, match=message):
        import_agent(tree, {"agent": {**known, **own}})


def test_pixels_cannot_be_imported(rng):
    _, networks, *_ = agents(rng)["fql"]
    networks = {**networks, "actor_bc_flow": {"mlp": {}, "encoder": {"Conv_0": {}}}}
    with pytest.raises(VGFError, match="actor_bc_flow is no perceptron: it has mlp, encoder"):
        import_agent(fql_form(networks))
    with pytest.raises(VGFError, match="no known agent has the networks"):
        import_agent({"agent": {}})


# --- files ---------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class Getattr:
    def __reduce__(self):
        return getattr, ("text", "upper")


def same(one, two):
    one, two = flatten(one), flatten(two)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
        assert one[name].dtype == two[name].dtype


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_arrays(rng, tmp_path, protocol):
    tree = agents(rng)["qgf"][0]
    tree["agent"] = collections.OrderedDict(tree["agent"])
    file = tmp_path / "params_1.pkl"
    file.write_bytes(pickle.dumps(tree, protocol))
    same(read_arrays(file)["agent"], dict(tree["agent"]))


def test_pickles_of_jax_arrays(tmp_path):
    need("jax")
    import jax.numpy as jnp

    file = tmp_path / "params_1.pkl"
    file.write_bytes(pickle.dumps({"agent": {"x": jnp.arange(6.0).reshape(2, 3)}}))
    found = read_arrays(file)["agent"]["x"]
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("thing", [Evil(), Getattr(), types.SimpleNamespace(), print, slice(1)])
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_of_code_are_not_run(tmp_path, monkeypatch, thing, protocol):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "params_1.pkl"
    file.write_bytes(pickle.dumps({"agent": {"critic": thing}}, protocol))
    with pytest.raises(VGFError, match="which is not an array; it was not loaded"):
        read_arrays(file)
    assert not (tmp_path / "pwned").exists()


def test_objects_inside_an_array_are_refused(tmp_path):
    file = tmp_path / "params_1.pkl"
    file.write_bytes(pickle.dumps({"agent": {"x": np.array([None, "a"], object)}}))
    with pytest.raises(VGFError, match="agent/x has dtype object"):
        read_arrays(file)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x05.", b"not a pickle", b"\x93NUMPY"])
def test_other_files(tmp_path, data):
    need("msgpack")
    file = tmp_path / "params_1.pkl"
    file.write_bytes(data)
    with pytest.raises(VGFError, match=r"params_1.pkl"):
        read_arrays(file)


def test_msgpack_of_flax(rng, tmp_path):
    need("msgpack")
    import msgpack

    tree = agents(rng)["fql"][0]

    def packed(x):
        array = np.asarray(x)
        inner = msgpack.packb(
            (array.shape, array.dtype.name, array.tobytes("C")), use_bin_type=True
        )
        return msgpack.ExtType(3 if isinstance(x, np.generic) else 1, inner)

    file = tmp_path / "params_1.msgpack"
    file.write_bytes(msgpack.packb(tree, default=packed, strict_types=True))
    same(read_arrays(file), tree)
    file.write_bytes(msgpack.packb({"agent": msgpack.ExtType(9, b"x")}))
    with pytest.raises(VGFError, match="msgpack extension 9 is not an array"):
        read_arrays(file)


# --- run folders ---------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(rng, tmp_path):
    tree, _, own, *_ = agents(rng)["qgf"]
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "params_500.pkl").write_bytes(pickle.dumps(tree))
    (folder / "flags.json").write_text(json.dumps({"agent": own, "env_name": ENV}))
    return folder


def test_a_run_folder_and_back(checkpoint, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["import", str(checkpoint), "--out", str(run)]) == 0
    assert "method iql, for pointmaze-medium" in capsys.readouterr().out
    config = open_run_folder(run)
    assert config.task.env == ENV
    assert not config.task.standardise
    tree, meta = load_checkpoint(run)
    assert meta.step == 500
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert "IQL" in (out / "README.md").read_text()
    with np.load(out / "agent.npz", allow_pickle=False) as arrays:
        assert "critic/hidden_0/kernel" in arrays.files
    back, again = import_run(str(out), tmp_path / "again")
    same(load_checkpoint(back)[0], tree)
    assert again.agent == config.agent
    assert load_checkpoint(back)[1].step == 500
    text = (out / "config.toml").read_text()
    for width in (1 << 40, 1 << 62):  # no memory holds it; no array has it
        (out / "config.toml").write_text(re.sub(r"hidden = \[\s*\d+", f"hidden = [{width}", text))
        with pytest.raises(VGFError, match="an agent of these settings cannot be made"):
            import_run(str(out), tmp_path / "giant")
        assert not (tmp_path / "giant").exists()


def test_an_export_is_whole_or_not_there(checkpoint, tmp_path, monkeypatch):
    import_run(str(checkpoint), tmp_path / "run", env=ENV)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exchange, "save_config", fail)
    with pytest.raises(VGFError, match=r"cannot write .*new: No space left on device"):
        export_run(tmp_path / "run", str(tmp_path / "deep" / "new"))
    assert not list((tmp_path / "deep").iterdir())


def test_what_a_run_folder_needs(checkpoint, tmp_path):
    (checkpoint / "flags.json").unlink()
    with pytest.raises(VGFError, match="name it, --env NAME"):
        import_run(str(checkpoint), tmp_path / "run")
    import_run(str(checkpoint), tmp_path / "run", env=ENV)
    with pytest.raises(VGFError, match="exists"):
        import_run(str(checkpoint), tmp_path / "run", env=ENV)
    with pytest.raises(VGFError, match="no such file or folder"):
        import_run(str(tmp_path / "nowhere"), tmp_path / "other")
    (checkpoint / "params_600.pkl").write_bytes(b"")
    with pytest.raises(VGFError, match=r"params_500.pkl, params_600.pkl; name one"):
        import_run(str(checkpoint), tmp_path / "other", env=ENV)
    with pytest.raises(VGFError, match="exists; name a new folder"):
        export_run(tmp_path / "run", str(tmp_path))


@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
def test_a_task_that_no_file_can_name(checkpoint, tmp_path, name):
    flags = checkpoint / "flags.json"
    flags.write_text(json.dumps(json.loads(flags.read_text()) | {"env_name": name}))
    with pytest.raises(VGFError, match=r"flags\.json: task\.env is .* in UTF-8 and without a NUL"):
        import_run(str(checkpoint), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Hub(types.ModuleType):
    """The three calls of huggingface_hub, on a folder."""

    def __init__(self, root):
        super().__init__("huggingface_hub")
        self.root = root

    def create_repo(self, repo_id, exist_ok):
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id, folder_path):
        if repo_id.startswith("theirs"):
            raise PermissionError("403: no rights\nmore")
        for name in os.listdir(folder_path):
            with open(os.path.join(folder_path, name), "rb") as file:
                (self.root / repo_id / name).write_bytes(file.read())

    def snapshot_download(self, repo_id):
        if not (self.root / repo_id).exists():
            raise ValueError(f"404: {repo_id}")
        return str(self.root / repo_id)

    def hf_hub_download(self, repo_id, filename):
        return str(self.root / repo_id / filename)


def test_the_hub_in_and_out(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "hub"))
    run, _ = import_run(str(checkpoint), tmp_path / "run")
    assert export_run(run, "hf://me/agent") == "hf://me/agent"
    back, _ = import_run("hf://me/agent", tmp_path / "back")
    same(load_checkpoint(back)[0], load_checkpoint(run)[0])
    file = tmp_path / "hub" / "me" / "agent" / "params_1.pkl"
    file.write_bytes((checkpoint / "params_500.pkl").read_bytes())
    one, _ = import_run("hf://me/agent/params_1.pkl", tmp_path / "one", env=ENV)
    same(load_checkpoint(one)[0], load_checkpoint(run)[0])
    with pytest.raises(VGFError, match="hf://me/none: ValueError: 404: me/none"):
        import_run("hf://me/none", tmp_path / "none")
    with pytest.raises(VGFError, match=r"PermissionError: 403: no rights$"):
        export_run(run, "hf://theirs/agent")
    with pytest.raises(VGFError, match="names no repository"):
        import_run("hf://me", tmp_path / "none")
    (tmp_path / "theirs.py").write_text("raise SystemExit('it ran')")
    config = tmp_path / "hub" / "me" / "agent" / "config.toml"
    text, count = re.subn(
        'method = "[a-z]*"', f'method = "{tmp_path}/theirs.py:M"', config.read_text()
    )
    assert count == 1
    config.write_text(text)
    with pytest.raises(VGFError, match=r"hf://me/agent: its config.toml names code, .*M"):
        import_run("hf://me/agent", tmp_path / "none")


def test_layer_norm_but_for_the_last_layer():
    network = Network((4, 3, 2), "relu", "inner")
    params = spec.init_mlp(np.random.default_rng(0), 2, network, 1)
    assert [("norm_scale" in params[f"hidden_{i}"]) for i in range(3)] == [True, True, False]


@pytest.mark.parametrize("features", [0, 3, -2])
def test_features_of_time(features):
    with pytest.raises(ValueError, match="1, or an even number"):
        method_settings("vgf", time_features=features)
