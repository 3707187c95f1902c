"""Several processes train as one would."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file

import ranks
import tiny
from training_parts import ALL, batch_of, prepared, run_python
from unicross.errors import DataError, RecipeError, UnicrossError
from unicross.training import distributed, entry, train
from unicross.training.distributed import check_same, gather, rank_slice, scale_gradient, sum_gradients

# -- shares of a batch ------------------------------------------------------------------------------


@pytest.fixture
def process(monkeypatch):
    """Make this process one of several that cannot hear each other."""

    def become(rank, size):
        monkeypatch.setattr(distributed, "size", lambda: size)
        monkeypatch.setattr(distributed, "rank", lambda: rank)

    return become


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 7, 15])
def test_shares_are_equally_long_and_gather_to_the_whole(process, monkeypatch, count, size):
    whole = torch.arange(3.0 * count).view(count, 3)
    shares = []
    for rank in range(size):
        process(rank, size)
        shares.append(whole[rank_slice(count)].clone().requires_grad_())
    assert len({len(rows) for rows in shares}) == 1
    assert len(shares[0]) == -(-count // size)

    def all_gather(parts, _):
        for part, rows in zip(parts, shares, strict=True):
            part.copy_(rows.detach())

    monkeypatch.setattr(dist, "all_gather", all_gather)
    seen = torch.zeros(count)
    for rank, own in enumerate(shares):
        process(rank, size)
        found = gather(own, count)
        assert torch.equal(found, whole)
        found.sum().backward()
        seen[rank_slice(count)] += own.grad[:, 0]
    assert torch.equal(seen, torch.ones(count))  # each row's gradient goes to one process


def test_one_process_sends_nothing():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather(rows, 3) is rows
    sum_gradients([torch.nn.Parameter(torch.ones(1))])  # would raise: there is no process group


def test_processes_make_their_rows_of_the_batch_that_one_makes(photos, process):
    recipe, _, data = prepared(photos, ALL, alone=2, views={"captions": 2})
    items = np.array([0, 24, 1, 2, 25, 3, 4])  # five pairs, an image and a text alone
    whole = batch_of(data, items, recipe.stages[0])
    parts = []
    for rank in range(2):
        process(rank, 2)
        parts.append(batch_of(data, items, recipe.stages[0]))
    for part, rows in zip(parts, (slice(0, 3), slice(3, 6)), strict=True):
        assert torch.equal(part.image_ids, whole.image_ids)
        assert torch.equal(part.text_ids, whole.text_ids)
        assert part.pairs == 5
        assert all(torch.equal(a, b[rows]) for a, b in zip(part.pixels, whole.pixels, strict=True))
        for mine, wanted in zip(part.image_views, whole.image_views, strict=True):
            assert torch.equal(mine.boxes, wanted.boxes[rows])
        for mine, wanted in zip(part.text_views, whole.text_views, strict=True):
            assert torch.equal(mine.ids, wanted.ids[rows])
            assert np.array_equal(mine.lengths, wanted.lengths[rows])
    assert parts[0].seed != parts[1].seed  # other rows, other dropout


def test_the_gradient_of_what_all_compute_is_counted_once(process):
    process(1, 4)
    value = torch.ones((), requires_grad=True)
    (3 * scale_gradient(value * 2)).backward()
    assert value.grad == 6 / 4


def test_gradients_are_summed_in_buckets(process, monkeypatch):
    process(0, 2)
    sent = []

    def all_reduce(flat):
        sent.append(len(flat))
        flat.mul_(2)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "BUCKET", 10)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(2, 3), (4,), (1,), (30,), ()]]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, number)
    parameters.append(torch.nn.Parameter(torch.zeros(7)))  # no loss asks for it
    sum_gradients(parameters)
    assert sent == [10, 1, 30, 1]
    for number, parameter in enumerate(parameters[:-1]):
        assert torch.equal(parameter.grad, torch.full_like(parameter, 2 * number))
    assert parameters[-1].grad is None


def test_processes_that_read_other_items_say_so(monkeypatch):
    check_same(["a", "b"], "photos")
    monkeypatch.setattr(distributed, "broadcast_object", lambda _: (3, "other"))
    with pytest.raises(DataError, match=r"photos: process 0 reads 2 items, the first process 3"):
        check_same(["a", "b"], "photos")


# -- whole runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_two(photos, tmp_path_factory):
    """The folder with the runs of two processes; one of them was begun by one, one is left to one."""
    folder = tmp_path_factory.mktemp("by_two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "read_splits", ranks.with_items_alone)
        for name in ranks.BEGUN:
            with pytest.raises(UnicrossError, match="cut short"):
                ranks.run(name, folder, photos, cut=ranks.CUT)
    done = run_python(ranks.__file__, folder, photos)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def by_one(photos, tmp_path_factory):
    """The folders of one process's runs."""
    folder = tmp_path_factory.mktemp("by_one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "read_splits", ranks.with_items_alone)
        for name in ("whole", "sharded", "sigmoid", "remembered"):
            ranks.run(name, folder, photos)
    return folder


def assert_alike(run, other):
    """Equal losses, metrics and weights to 1e-5."""
    for kind, figures in (
        ("step", ("loss", "grad_norm")),
        ("eval", ("rsum", "compute")),
        ("round", ("masked",)),
        ("hubness", ("rsum",)),
    ):
        mine, wanted = tiny.events(run, kind), tiny.events(other, kind)
        assert [event["step"] for event in mine] == [event["step"] for event in wanted]
        for figure in figures:
            assert [e[figure] for e in mine] == pytest.approx([e[figure] for e in wanted], rel=1e-5, abs=1e-5)
    for name in ("last/model", "last/training", "last/optimizer", "best/model"):
        mine, wanted = (load_file(folder / f"{name}.safetensors") for folder in (run, other))
        assert mine.keys() == wanted.keys()
        for key, tensor in wanted.items():
            close = (
                {"rtol": 1e-5, "atol": 1e-5} if tensor.dtype == torch.float32 else {"rtol": 0, "atol": 2e-3}
            )
            torch.testing.assert_close(mine[key], tensor, **close, msg=f"{name}: {key}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("whole", "whole"),
        ("micro", "whole"),
        ("sharded", "sharded"),
        ("sigmoid", "sigmoid"),
        ("remembered", "remembered"),
    ],
)
def test_two_processes_train_as_one_does(by_two, by_one, name, same):
    """All three losses, masks, two captions, uneven shares, items alone, rounds, hubs."""
    assert max(event["masked"] for event in tiny.events(by_one / same, "round")) > 0
    assert_alike(by_two / name, by_one / same)


@pytest.mark.slow
def test_a_run_is_resumed_by_another_number_of_processes(by_two, by_one, photos, monkeypatch):
    assert_alike(by_two / "begun-by-one", by_one / "whole")
    assert_alike(by_two / "sharded-begun-by-one", by_one / "sharded")
    begun = by_two / ranks.BEGUN_BY_TWO
    assert len(tiny.events(begun, "step")) == ranks.CUT
    monkeypatch.setattr(entry, "read_splits", ranks.with_items_alone)
    ranks.run(ranks.BEGUN_BY_TWO, by_two, photos)
    assert_alike(begun, by_one / "whole")


@pytest.mark.slow
def test_sharded_weights_are_spread(by_two):
    kept = [float((by_two / f"kept-{rank}").read_text()) for rank in range(2)]
    assert 0.95 < sum(kept) <= 1
    assert max(kept) < 0.6


def test_what_cannot_be_sharded_is_refused(photos):
    with pytest.raises(RecipeError, match="the same `freeze` in all stages"):
        tiny.recipe(photos, tiny.UNI, tiny.ALIGN | {"freeze": ["image"]}, train={"shard": True})


def test_sharding_one_process_has_no_effect_and_says_so(photos, tmp_path):
    heard = []
    train(tiny.recipe(photos, tiny.ALIGN, train={"shard": True}), tmp_path / "run", listener=heard.append)
    (note,) = [event["text"] for event in heard if event["kind"] == "note"]
    assert "train.shard has no effect on a single process" in note


@pytest.mark.slow
def test_dropout_of_several_processes_is_decided_by_the_seed(by_two):
    one, again = (
        [event["loss"] for event in tiny.events(by_two / name, "step")]
        for name in ("dropout", "dropout-again")
    )
    assert len(one) == 3
    assert one == again


@pytest.mark.slow
def test_an_error_in_one_process_stops_the_others(by_two):
    assert (by_two / "stopped-0").read_text() == "cut short"
    assert "process 1 of 2 stops because another one did" in (by_two / "stopped-1").read_text()


# -- the command line -------------------------------------------------------------------------------


def torchrun(*arguments):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unicross", "train"]
    return run_python(*command, *arguments)


@pytest.mark.slow
def test_torchrun_trains_one_model_and_one_process_speaks(photos, tmp_path):
    raw = tiny.raw_recipe(photos, tiny.ALIGN, data={"cache": "disk"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    run = tmp_path / "run"
    done = torchrun(str(tmp_path / "recipe.yaml"), "--out", str(run), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done in") == 1
    assert done.stderr.count("24 items, 3 steps") == 1
    assert len(tiny.events(run, "step")) == 3
    again = torchrun(str(tmp_path / "recipe.yaml"), "--out", str(run), "--device", "cpu")
    assert again.returncode != 0
    assert f"error: {run} is not empty" in again.stderr
