"""What a verdict may say: a cause only if it explains every input, and what it holds for."""

import math
import re

import numpy as np
import pytest
from needs import need

pytest.importorskip("hypothesis")

from test_checker import kernel, phi, says

from vgf.checker.junit import junit
from vgf.checker.loading import load_checked, load_variants
from vgf.cli import main
from vgf.spec import langevin, repulsion, repulsion_through_bandwidth
from vgf.support.errors import VGFError
from vgf.testing import Adapter, assert_matches, check_function


def bandwidth(x, log=lambda n: math.log(n + 1)):
    n = x.shape[-2]
    distances = ((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1)
    median = np.median(distances.reshape(*x.shape[:-2], n * n), axis=-1)
    return np.maximum(median / (2 * log(n)), 1e-12).astype(x.dtype)


def row_sums(x, score, alpha):
    """The repulsion as a_i sum_j k - sum_j k a_j."""
    s = bandwidth(x)
    k = kernel(x, s)
    away = (x * k.sum(-1, keepdims=True) - k @ x) / s[..., None, None]
    return (k @ score / alpha + away) / x.shape[-2]


def gram(x, score, alpha):
    """Distances from a Gram matrix, clipped at 0."""
    n, square = x.shape[-2], (x**2).sum(-1)
    d = square[..., :, None] + square[..., None, :] - 2 * x @ np.swapaxes(x, -1, -2)
    d = np.maximum(d, 0)
    s = np.maximum(np.median(d.reshape(*d.shape[:-2], -1), -1) / (2 * math.log(n + 1)), 1e-12)
    s = s.astype(x.dtype)[..., None, None]
    k = np.exp(-d / (2 * s))
    away = (k[..., None] * (x[..., :, None, :] - x[..., None, :, :])).sum(-2) / s
    return (k @ score / alpha + away) / n


# --- right ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [row_sums, pytest.param(gram, marks=pytest.mark.slow)])
@pytest.mark.full
def test_another_form_of_a_sum_agrees_up_to_cancellation_and_says_its_cost(form):
    result = check_function(form, "phi", examples=200)
    assert result.agrees, str(result)
    assert result.verdict == "agrees up to cancellation"
    assert result.digits > 1
    assert "digits more" in str(result)
    strict = check_function(form, "phi", examples=200, tolerance="strict", explain=False)
    assert not strict.agrees


@pytest.mark.slow
def test_a_wrong_function_is_not_excused_by_cancellation():
    wrong = lambda x, score, alpha: row_sums(x, score, alpha) * (1 + 1e-5)
    assert not check_function(wrong, "phi", explain=False).agrees


SMALL_MISTAKES = {
    "a factor": ("phi", lambda x, score, alpha: phi(x, score, alpha) * (1 + 1e-5)),
    "a smaller one": (
        "repulsion",
        lambda a, sigma_squared: repulsion(a, sigma_squared) * (1 + 1e-6),
    ),
    "a term": ("phi", lambda x, score, alpha: phi(x, score, alpha) + 1e-6 * np.sin(x)),
    "a discount": (
        "td_target",
        lambda r, mask, q, discount: r + (discount + 2e-6) * mask * q.min(0).mean(-1),
    ),
}


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("a factor", "a term")))
        for name in SMALL_MISTAKES
    ],
)
def test_an_error_as_small_as_float32s_is_no_evidence_of_float32(name):
    subject, function = SMALL_MISTAKES[name]
    options = {"examples": 60, "dtype": "float64", "explain": False}
    assert not check_function(function, subject, **options).agrees


def test_a_cast_to_float32_is_judged_in_float32():
    def cast(x, score, alpha):
        return phi(np.float32(x), np.float32(score), alpha)

    result = check_function(cast, "phi", examples=40)
    assert result.agrees, str(result)
    assert [t.dtype for t in result.tried] == ["float32"]

    def weights(q, y, expectile):
        x = y - q
        return (
            (np.where(x > 0, np.float32(expectile), np.float32(1 - expectile)) * x * x)
            .sum(0)
            .mean()
        )

    def buffer(r, mask, q, discount):
        later = np.float32(discount) * np.float32(mask) * np.float32(q.min(0).mean(-1))
        return r + later.astype(float)

    for function, name in ((weights, "critic_loss"), (buffer, "td_target")):
        result = check_function(function, name, examples=40)
        assert result.agrees, str(result)
        assert "something inside computes in float32" in str(result)


@pytest.mark.full
def test_products_in_bfloat16_agree_when_asked_for():
    need("torch")
    import torch

    def half(x, y):
        x, y = x.to(torch.bfloat16).float(), y.to(torch.bfloat16).float()
        return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)

    options = {"examples": 30, "dtype": "float32", "explain": False}
    assert not check_function(half, "squared_distances", **options).agrees
    options.pop("dtype")
    assert check_function(half, "squared_distances", tolerance="bf16", **options).agrees


def test_a_number_inside_the_code_is_found_and_said():
    target = lambda r, mask, q: r + 0.97 * mask * q.min(0).mean(-1)
    result = check_function(target, "td_target", examples=40)
    assert result.agrees
    assert "discount = 0.97" in str(result)


class SVGD:
    def __init__(self, alpha=0.3):
        self.alpha = alpha

    def phi(self, theta, lnprob):
        return phi(theta, lnprob(theta), self.alpha)


def test_a_method_of_a_class_keeps_its_state(tmp_path, capsys):
    assert_matches(SVGD().phi, "phi", closures={"lnprob": "score"}, examples=40)
    file = tmp_path / "svgd.py"
    file.write_text(
        "class Target:\n"
        "    def __init__(self, discount): self.discount = discount\n"
        "    def target(self, batch):\n"
        "        q = batch.next_q.min(0).mean(-1)\n"
        "        return batch['rewards'] + self.discount * batch['masks'] * q\n"
    )
    batch = "batch={'rewards': r, 'masks': mask, 'next_q': q}"
    words = ["check", f"{file}:Target.target", "--as", "td_target", "--arg", batch]
    assert main([*words, "--examples", "20", "--construct", "discount=0.9"]) == 0
    assert main(words) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_a_result_of_several_parts():
    def pick(particles, q):
        i = np.argmax(q, axis=-1)
        return list(np.take_along_axis(particles, i[:, None, None], axis=1)[:, 0]), i

    assert_matches(pick, "select", constants={"rule": "best"}, examples=40)


@pytest.mark.full
def test_fql_with_its_critic_as_a_function():
    def loss(actor, critic, obs, noise, target, alpha):
        a = actor(np.concatenate([obs, noise], -1))
        return alpha * np.mean((a - target) ** 2) - critic(obs, np.clip(a, -1, 1)).mean()

    closures = {"actor": "network", "critic": "critic"}
    assert_matches(loss, "policy_loss", closures=closures, examples=30)


def test_none_that_becomes_nan_is_not_tried():
    quiet = lambda x, score, alpha: phi(x, score, np.asarray(alpha, float))
    result = check_function(quiet, "phi", examples=40)
    assert result.agrees
    assert "takes no None" in str(result)


# --- wrong ones ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_exchanged_arguments_and_another_layout_are_recognised():
    result = check_function(lambda x, score, alpha: phi(score, x, alpha), "phi", examples=60)
    assert not result.agrees
    assert result.findings[0].kind == "called"
    assert "exchanged" in says(result)

    def rows_first(x, score, alpha):
        return np.swapaxes(phi(np.swapaxes(x, 0, 1), np.swapaxes(score, 0, 1), alpha), 0, 1)

    result = check_function(rows_first, "phi", examples=60)
    assert "--layout 'N B d'" in says(result)
    assert_matches(rows_first, "phi", layout={"": "N B d"}, examples=60)


SIZES_AND_BRANCHES = {
    "particles beyond 8": lambda x, g, alpha: _beyond(x, g, alpha),
    "rows beyond 4": lambda x, g, alpha: phi(x, g, alpha) * (np.arange(len(x)) < 4)[:, None, None],
    "a rare value": lambda x, g, alpha: phi(x, g, alpha) * (0 if 2.2 < g.flat[0] < 3 else 1),
    "a rare setting": lambda x, g, alpha: phi(x, g, alpha if not 3 < alpha < 4 else 3.0),
    "a rare size": lambda x, g, alpha: phi(x, g, alpha) * (2 if x.shape[1] == 21 else 1),
}


def _beyond(x, g, alpha):
    s = bandwidth(x)
    k = kernel(x, s)
    k[..., 8:] = 0
    away = (k[..., None] * (x[..., :, None, :] - x[..., None, :, :])).sum(-2)
    return (k @ g / alpha + away / s[..., None, None]) / x.shape[-2]


@pytest.mark.full
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("a rare size", "a rare value")))
        for name in SIZES_AND_BRANCHES
    ],
)
def test_sizes_and_rare_branches_are_sought(name, seed):
    function = SIZES_AND_BRANCHES[name]
    assert not check_function(function, "phi", seed=seed, explain=False, dtype="float64").agrees


def test_a_line_that_no_input_reached_is_told():
    def odd(r, mask, q, discount):
        value = r + discount * mask * q.min(0).mean(-1)
        if len(r) == 1234567:
            value = value * 2
        return value

    result = check_function(odd, "td_target", examples=20)
    assert result.agrees
    assert "no input reached line" in str(result)


@pytest.mark.slow
def test_a_cause_is_told_only_if_it_explains_every_input():
    # two minds: the lower median on one input in two
    def mixed(x, g, alpha):
        n = x.shape[-2]
        if x.flat[0] > 0:
            return phi(x, g, alpha)
        d = np.sort(((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1).reshape(len(x), -1))
        low = np.maximum(d[:, (n * n - 1) // 2] / (2 * math.log(n + 1)), 1e-12)
        return 1.5 * phi(x, g, alpha, low)

    result = check_function(mixed, "phi")
    assert not result.agrees
    assert all(f.kind not in ("variant", "factor") for f in result.findings), says(result)
    assert "no named variant" in says(result)


def test_a_scalar_is_no_multiple():
    result = check_function(lambda q, y: np.sum(np.abs(y - q) ** 1.5), "critic_loss", examples=60)
    assert not result.agrees
    assert "multiple" not in says(result)


@pytest.mark.slow
def test_which_term_of_phi_differs():
    def other_kernel(x, g, alpha):
        s = bandwidth(x)[..., None, None]
        difference = x[..., :, None, :] - x[..., None, :, :]
        k = 1 / np.cosh((difference**2).sum(-1) / s)
        return (k @ g / alpha + (k[..., None] * difference / s[..., None]).sum(-2)) / x.shape[-2]

    assert "both terms differ" in says(check_function(other_kernel, "phi"))


@pytest.mark.full
def test_a_mistake_of_ones_own_is_described_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from vgf.testing.variants import VARIANTS, variant\n"
        "@variant('my cosh', 'aggregate', 'your ensemble takes the second smallest')\n"
        "def _(b, original, q, how='mean'):\n"
        "    import numpy as np\n"
        "    return np.sort(q, axis=0)[min(1, len(q) - 1)]\n"
    )
    second = lambda r, mask, q, discount: (
        r + discount * mask * np.sort(q, axis=0)[min(1, len(q) - 1)].mean(-1)
    )
    result = check_function(second, "td_target", variants=load_variants(file), examples=30)
    assert "second smallest" in says(result)
    assert "my cosh" not in says(check_function(second, "td_target", examples=30))
    (tmp_path / "none.py").write_text("")
    with pytest.raises(VGFError, match="registers no variant"):
        load_variants(tmp_path / "none.py")


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def target(r, mask, q, discount):\n"
        "    return r + discount * mask * q.min(0).mean(-1)\n"
        "def unmasked(r, mask, q, discount):\n"
        "    return r + discount * q.min(0).mean(-1)\n"
    )
    return path


def test_a_failure_of_the_check_itself_is_status_3(file, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError("of the tool")

    monkeypatch.setattr("vgf.checker.checking.check_function", broken)
    assert main(["check", f"{file}:target", "--as", "td_target"]) == 3
    assert "the check itself failed" in capsys.readouterr().err


def test_sizes_are_held_and_the_domain_is_said(file, capsys):
    words = ["check", f"{file}:target", "--as", "td_target", "--examples", "30"]
    assert main([*words, "--sizes", "N=7,E=4"]) == 0
    assert "N 7, d 1 to 12, E 4" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--sizes", "K=7"]) == 2
    assert main([*words, "--tolerance", "loose"]) == 2


def test_junit(file, tmp_path):
    from xml.etree import ElementTree

    report = tmp_path / "report.xml"
    words = ["--as", "td_target", "--examples", "30", "--junit", str(report)]
    assert main(["check", f"{file}:unmasked", *words]) == 1
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "mask" in suite.find("testcase/failure").get("message")
    assert junit([]).count("testcase") == 0


def clipped_target(q, r, mask, discount):
    return np.clip(r + discount * mask * q.min(0).mean(-1), -100.0, 100.0)


def scale_plus_one(x, scale, offset):
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / deviation * (1 + scale) + offset


def lower_median_of_log_n(a):
    n = a.shape[-2]
    distances = ((a[..., :, None, :] - a[..., None, :, :]) ** 2).sum(-1)
    middle = np.sort(distances.reshape(*a.shape[:-2], -1))[..., (n * n - 1) // 2]
    return np.maximum(middle / (2 * np.log(max(n, 2))), 1e-12)


@pytest.mark.parametrize(
    ("function", "name", "says"),
    [
        (clipped_target, "td_target", "is the specification's result clipped to [-100, 100]"),
        pytest.param(
            *(scale_plus_one, "layer_norm", "takes 1 + scale where scale belongs"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(lower_median_of_log_n, "bandwidth_squared", "'lower median' and 'log N'"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_done_to_an_argument_or_a_result_is_named(function, name, says):
    held = {"how": "min", "particles": "mean"} if name == "td_target" else {}
    adapter = Adapter(constants=held)
    result = check_function(function, name, adapter, examples=150, dtype="float64")
    assert not result.agrees
    assert says in " ".join(str(result).split()), str(result)


@pytest.mark.slow
def test_the_number_beyond_which_it_differs_is_told():
    def step(a, velocity, step_size):
        largest = np.abs(velocity).max()
        if largest > 10:
            velocity = velocity * (10 / largest)
        return np.clip(a + step_size * velocity, -1, 1)

    plain = Adapter(constants={"optimiser": "plain", "clip_norm": None})
    result = check_function(step, "flow_step", plain, examples=200, dtype="float64")
    where = next(f.says for f in result.findings if f.kind == "where")
    assert re.match(r"it differs only where the largest \|velocity\| is 1\d(\.\d)? or more", where)


@pytest.mark.slow
def test_row_sums_pass_where_the_bandwidth_is_differentiated_too():
    def differentiated(x, score, alpha):
        s, n = bandwidth(x), x.shape[-2]
        k = kernel(x, s)
        apart = (x * k.sum(-1, keepdims=True) - k @ x) / s[..., None, None] / n
        through = repulsion_through_bandwidth(x) - repulsion(x, s)
        return (k @ score / (alpha * n) + apart + through).astype(x.dtype)

    held = Adapter(constants={"bandwidth_gradient": True, "bandwidth": None, "kernel_guard": 0.0})
    result = check_function(differentiated, "phi", held, examples=100, dtype="float32")
    assert result.verdict == "agrees up to cancellation", str(result)
    result = check_function(
        differentiated, "phi", held, examples=100, dtype="float32", tolerance="strict"
    )
    assert not result.agrees


def test_what_it_does_not_take_is_held_at_the_specifications_default():
    def sparse(q, y, expectile):
        x = y - q
        w = x / (2 * expectile) + 1
        return np.mean(np.sum(np.where(w > 0, expectile * w**2, 0.0) - x, axis=0))

    held = Adapter(constants={"loss": "sparse"})
    result = check_function(sparse, "critic_loss", held, examples=100, dtype="float64")
    assert result.agrees, str(result)
    assert "sparse_alpha = None" in str(result)


def test_an_argument_that_may_not_be_none_there_is_mapped_like_any():
    def by_distances(x, logp, table, old, legal, lam, k):
        far = ((x[:, None] - table) ** 2).sum(-1)
        score = ((x**2).sum(-1)[:, None] - far) / 2 / (table**2).sum(-1).mean() + lam * logp
        legal = np.where(legal, logp, -np.inf)
        least = np.sort(legal, -1)[:, -min(k, legal.shape[1]), None]
        kept = np.isfinite(legal) & (legal >= least)
        return np.where(kept | (np.arange(len(table)) == old[:, None]), score, -np.inf)

    names = {"x": "u", "logp": "log_p", "table": "embeddings", "old": "original"}
    names |= {"legal": "allowed", "lam": "decoding_weight", "k": "decoding_top"}
    result = check_function(by_distances, "decoding_scores", Adapter(names), examples=60)
    assert result.verdict == "agrees up to cancellation", str(result)

    def steps(params, s, a, noise, step_size, alpha, how, activation):
        return langevin(params, s, a, noise, step_size, alpha, how, activation)

    result = check_function(
        steps, "langevin", Adapter({"alpha": "temperature"}), examples=30, dtype="float64"
    )
    assert result.agrees, str(result)


def test_a_layout_with_states_is_not_tried_for_one_state():
    def fails(p, y):
        raise RuntimeError("not mine")

    held = Adapter({"p": "q"}, layout={"q": "B E"}, constants={"loss": "squared"})
    result = check_function(fails, "critic_loss", held, examples=10, dtype="float64", explain=False)
    assert not result.agrees
    assert "RuntimeError: not mine" in str(result)


def test_a_method_that_a_decorator_wrapped_is_of_an_instance(tmp_path):
    need("jax")
    file = tmp_path / "wrapped.py"
    file.write_text(
        "import functools, jax\n"
        "class Target:\n"
        "    def __init__(self, gamma): self.gamma = gamma\n"
        "    @functools.partial(jax.jit, static_argnums=0)\n"
        "    def compiled(self, r): return self.gamma * r\n"
        "    @functools.lru_cache\n"
        "    def cached(self, r): return self.gamma * r\n"
        "    @staticmethod\n"
        "    def plain(r): return r\n"
    )
    for name in ("compiled", "cached"):
        assert load_checked(f"{file}:Target.{name}", {"gamma": 0.5})(2.0) == 1.0
    assert load_checked(f"{file}:Target.plain", {})(2.0) == 2.0
    with pytest.raises(VGFError, match="--construct is for a class"):
        load_checked(f"{file}:Target.plain", {"gamma": 0.5})
