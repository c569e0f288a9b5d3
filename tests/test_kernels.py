"""Test the native kernels against float64, with PyTorch's float32 error as tolerance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2 import kernels
from tdmpc2.common.numerics import native_build
from tdmpc2.kernels.blocked import BlockedWeights, block_of
from tdmpc2.layers import mish, simnorm
from tests.test_architecture import ROOT

# Layers, rows and units: one layer, an ensemble, and rows that are not whole SIMD vectors.
SHAPES = [(1, 64, 512), (5, 40, 64), (2, 37, 16)]


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    assert kernels.load()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def definition(
    x: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, factor: Tensor | None, group: int
) -> Tensor:
    """Compute act(LayerNorm(factor·(x + bias))) with the plain layers."""
    x = x + bias[:, None]
    if factor is not None:
        x = x * factor
    x = F.layer_norm(x, x.shape[-1:]) * gamma[:, None] + beta[:, None]
    return simnorm(x, group, 0.7) if group else mish(x)


@pytest.mark.parametrize("group", [0, 8], ids=["mish", "simnorm"])
@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize(("num", "rows", "dim"), SHAPES)
def test_values_and_gradients(num: int, rows: int, dim: int, dropout: bool, group: int) -> None:
    """Check that the error is at most a few times the error of plain float32."""
    args = [drawn(num, rows, dim), *(drawn(num, dim, seed=i) for i in (1, 2, 3))]
    factor = (drawn(num, rows, dim, seed=4) > -1).float() / 0.84 if dropout else None
    exact_args = [a.detach().double().requires_grad_() for a in args]
    exact = definition(*exact_args, None if factor is None else factor.double(), group)
    plain = definition(*args, factor, group)
    ours = torch.ops.tdmpc2.norm_act(*args, factor, group, 0.7)[0]
    assert (ours - exact).abs().max() < 5e-6
    grad = drawn(num, rows, dim, seed=5).detach()
    pairs = zip(
        torch.autograd.grad(exact, exact_args, grad.double()),
        torch.autograd.grad(plain, args, grad),
        torch.autograd.grad(ours, args, grad),
        strict=True,
    )
    for reference, theirs, own in pairs:
        allowed = 10 * (theirs - reference).abs().max() + 2e-6
        assert (own - reference).abs().max() < allowed


def test_a_single_layer_takes_any_leading_shape() -> None:
    """A single layer has the values and gradients of an ensemble with one member."""
    x, params = drawn(3, 5, 7, 32), [drawn(32, seed=i) for i in (1, 2, 3)]
    y = torch.ops.tdmpc2.norm_act(x, *params, None, 8, 0.7)[0]
    alone = [p.detach()[None].requires_grad_() for p in params]
    rows = x.detach().view(1, -1, 32).requires_grad_()
    expected = torch.ops.tdmpc2.norm_act(rows, *alone, None, 8, 0.7)[0]
    assert torch.equal(y.view(1, -1, 32), expected)
    ours = torch.autograd.grad(y.square().sum(), [x, *params])
    theirs = torch.autograd.grad(expected.square().sum(), [rows, *alone])
    for first, second in zip(ours, theirs, strict=True):
        assert torch.equal(first.flatten(), second.flatten())


def test_extreme_values_stay_finite() -> None:
    """Test units with differences as large as float32 norm parameters allow."""
    x, ones = drawn(1, 16, 32).detach(), torch.ones(1, 32)
    for group in (0, 8):
        args = (1e4 * x, 0 * ones, 1e3 * ones, 0 * ones)
        y = torch.ops.tdmpc2.norm_act(*args, None, group, 1.0)[0]
        assert y.isfinite().all()
        expected = F.layer_norm(args[0], (32,)) * 1e3
        expected = simnorm(expected, 8) if group else mish(expected)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_nan_is_not_hidden() -> None:
    x = torch.ones(1, 2, 16)
    x[0, 0, 3] = torch.nan
    params = (torch.zeros(1, 16), torch.ones(1, 16), torch.zeros(1, 16))
    for group in (0, 8):
        y = torch.ops.tdmpc2.norm_act(x, *params, None, group, 1.0)[0]
        assert y[0, 0].isnan().all()
        assert y[0, 1].isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_rows(threads: int) -> None:
    """Values are bit-identical; sums over rows are equal up to rounding."""
    before = torch.get_num_threads()
    args = [drawn(2, 37, 64), *(drawn(2, 64, seed=i) for i in (1, 2, 3))]
    grad = drawn(2, 37, 64, seed=5).detach()
    outcomes = []
    try:
        for num in (1, threads, threads):
            torch.set_num_threads(num)
            y = torch.ops.tdmpc2.norm_act(*args, None, 0, 1.0)[0]
            outcomes.append((y, *torch.autograd.grad(y, args, grad)))
    finally:
        torch.set_num_threads(before)
    alone, shared, again = outcomes
    assert torch.equal(alone[0], shared[0])
    assert torch.equal(alone[1], shared[1])
    for first, second, third in zip(alone, shared, again, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
        assert torch.equal(second, third)


@pytest.mark.parametrize("heads", [None, [3, 1]], ids=str)
@pytest.mark.parametrize("block", [256, 244, 100])
@pytest.mark.parametrize("shared", [True, False], ids=["same input", "an input each"])
@pytest.mark.usefixtures("library")
def test_dense_is_a_whole_layer(heads: list[int] | None, shared: bool, block: int) -> None:
    if not BlockedWeights.possible():
        pytest.skip("torch's library of products takes no blocked weights here")
    num = 4 if heads is None else 2
    weight, bias, gamma, beta = (drawn(4, 160, *s).detach() for s in ((37,), (), (), ()))
    x = drawn(*(() if shared else (num,)), 2 * block, 37).detach()
    blocked = torch.empty(4, torch.ops.tdmpc2.blocked_size(160, 37, block))
    torch.ops.tdmpc2.block_(blocked, weight, block)
    chosen = None if heads is None else torch.tensor(heads)
    index = slice(None) if heads is None else heads
    for group in (0, 8):
        params = (bias, gamma, beta, chosen, block, group, 0.7)
        ours = torch.ops.tdmpc2.dense(x, blocked, *params)
        products = x.double() @ weight[index].double().transpose(1, 2)
        params = (p[index].double() for p in (bias, gamma, beta))
        torch.testing.assert_close(
            ours.double(), definition(products, *params, None, group), rtol=1e-5, atol=2e-5
        )


@pytest.mark.usefixtures("library")
def test_blocked_weights_follow_their_parameters() -> None:
    """Within `in_use` a layer has up-to-date blocked weights, outside none."""
    if not BlockedWeights.possible():
        pytest.skip("torch's library of products takes no blocked weights here")
    layer = torch.nn.Linear(16, 16)
    weights = BlockedWeights([layer], rows=512)
    x, ones, zeros = drawn(256, 16).detach(), torch.ones(1, 16), torch.zeros(1, 16)
    outcomes = []
    for _ in range(2):
        with torch.no_grad(), weights.in_use():
            layer.weight.copy_(torch.flip(layer.weight, [0]))  # takes effect at the next entry
            outcomes.append(
                torch.ops.tdmpc2.dense(x, layer.blocked[0], zeros, ones, zeros, None, 256, 0, 1)
            )
        assert layer.blocked is None
    assert not torch.equal(*outcomes)
    products = x @ layer.weight.detach().T
    for outcome, weight in zip(outcomes, (products, products.flip(-1)), strict=True):
        expected = definition(weight, zeros, ones, zeros, None, 0)
        torch.testing.assert_close(outcome, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("rows", "threads", "block"),
    [
        (512, 1, 256),
        (488, 1, 244),
        (300, 2, 150),
        (64, 1, 64),
        (512, 4, 128),
        (512, 9, 0),  # some threads would be idle
        (63, 1, 0),
        (521, 1, 0),  # a prime
    ],
)
def test_blocks_are_equal_shares(rows: int, threads: int, block: int) -> None:
    assert block_of(rows, threads) == block


# --- building ------------------------------------------------------------------------


def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int one() { return 1; }')
    library = native_build.build(source)
    built = library.stat().st_mtime_ns
    assert native_build.build(source) == library
    assert library.stat().st_mtime_ns == built
    source.write_text('extern "C" int one() { return 2; }')
    assert native_build.build(source) != library
    assert {path.suffix for path in library.parent.iterdir()} == {".so", ".sha256"}


@pytest.mark.parametrize("how", ["truncated", "changed", "no checksum", "writable", "of another"])
def test_a_library_that_cannot_be_trusted_is_built_again(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int one() { return 1; }')
    old = os.umask(0o002)  # the default of many systems
    try:
        library = native_build.build(source)
        content, built = library.read_bytes(), library.stat().st_mtime_ns
        assert native_build.build(source).stat().st_mtime_ns == built
        if how == "truncated":
            os.truncate(library, 1000)
        elif how == "changed":
            library.write_bytes(content[:-1] + b"x")
        elif how == "no checksum":
            library.with_suffix(".sha256").unlink()
        elif how == "writable":
            library.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(library, 65534, 65534)
        else:
            pytest.skip("only root can give a file to another user")
        rebuilt = native_build.build(source)
    finally:
        os.umask(old)
    assert rebuilt.read_bytes() == content
    assert (rebuilt.stat().st_uid, rebuilt.stat().st_mode & 0o777) == (os.getuid(), 0o755)


def test_the_compilers_complaint_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "wrong.cpp"
    source.write_text("nonsense")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        native_build.build(source)
    assert "nonsense" in caught.value.stderr
    assert not [path for path in (tmp_path / "tdmpc2-repro").rglob("*") if path.is_file()]


def test_why_a_library_cannot_be_loaded_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "unresolved.cpp"
    source.write_text("void missing(); void (*used)() = missing;")
    with pytest.warns(RuntimeWarning, match=r"native kernel not built.*undefined symbol"):
        assert not native_build.load(source)


def test_without_a_compiler_there_is_a_warning_and_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(RuntimeWarning, match=r"native kernel not built.*g\+\+"):
        assert not kernels.load.__wrapped__()


@pytest.mark.parametrize("ensemble", [False, True], ids=["layer", "ensemble"])
@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
def test_vectorised_over_models(ensemble: bool, dropout: bool) -> None:
    """Values and gradients of each model equal those of the model alone."""
    lead = (5,) if ensemble else ()
    rows = (*lead, 24, 16) if ensemble else (2, 12, 16)
    x, params = drawn(3, *rows), [drawn(3, *lead, 16, seed=i) for i in (1, 2, 3)]
    factor = (drawn(3, *rows, seed=4) > 0).float() * 2 if dropout else None
    grad = drawn(3, *rows, seed=5).detach()

    def one(x: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, factor: Tensor | None) -> Tensor:
        return torch.ops.tdmpc2.norm_act(x, bias, gamma, beta, factor, 8, 0.7)[0]

    dims = (0, 0, 0, 0, 0 if dropout else None)
    together = torch.vmap(one, in_dims=dims)(x, *params, factor)
    gradients = torch.autograd.grad(together, [x, *params], grad)
    for k in range(3):
        alone = one(x[k], *(p[k] for p in params), None if factor is None else factor[k])
        torch.testing.assert_close(together[k], alone)
        for ours, theirs in zip(
            gradients, torch.autograd.grad(alone, [x, *params], grad[k]), strict=True
        ):
            torch.testing.assert_close(ours[k], theirs[k])


def test_vectorised_with_what_all_models_share() -> None:
    x, params = drawn(2, 12, 16), [drawn(3, 16, seed=i) for i in (1, 2, 3)]
    together = torch.vmap(
        lambda *p: torch.ops.tdmpc2.norm_act(x, *p, None, 0, 1.0)[0], in_dims=(0, 0, 0)
    )(*params)
    for k in range(3):
        alone = torch.ops.tdmpc2.norm_act(x, *(p[k] for p in params), None, 0, 1.0)[0]
        torch.testing.assert_close(together[k], alone)


def test_the_same_holds_with_avx2() -> None:
    """There, the kernels have code that CPUs with AVX-512 do not run otherwise."""
    files = ("tests/test_kernels.py", "tests/baselines/test_kernels.py")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not avx2")
    done = subprocess.run(
        [*command, *files],
        cwd=ROOT,
        env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
