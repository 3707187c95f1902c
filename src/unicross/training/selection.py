"""Which weights become a run's best: what validation finds, when to stop looking, and the mix at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from unicross.model import TwoTower
from unicross.model.hubness import HUBNESS
from unicross.run import RunFolder
from unicross.streams import stream
from unicross.training.cost import TowerCost
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object
from unicross.training.embedding import validate
from unicross.training.hubness_fitting import fit_hubness
from unicross.training.interpolation import mixed, mixes
from unicross.training.state import State


class Selection:
    """Looks at a model on validation items, and on other data, while it is trained."""

    def __init__(
        self,
        run: RunFolder,
        state: State,
        cost: TowerCost,
        val: Dataset | None,
        elsewhere: Mapping[str, Dataset],
        emit: Callable[..., None],
    ) -> None:
        """`emit` takes the kind of an event and its values; `elsewhere` is other data to evaluate on."""
        self.run, self.state, self.cost = run, state, cost
        self.val, self.elsewhere, self.emit = val, elsewhere, emit

    def look(self) -> None:
        """Evaluate where that is due; what is better than the best so far is published."""
        progress, recipe = self.state.progress, self.state.recipe
        is_due = progress.turn % recipe.train.validate_every == 0 or progress.turn == recipe.epochs
        if self.val is None or not is_due:
            return
        result = validate(self.state.model, self.val)
        metrics = result.metrics
        self.emit("eval", compute=self.cost.of(progress.forwards), **metrics)
        elsewhere = self._look_elsewhere(self.state.model)
        progress.looks_since_best += 1
        if metrics["rsum"] > progress.best:
            progress.best, progress.best_metrics, progress.looks_since_best = metrics["rsum"], metrics, 0
            progress.best_elsewhere = elsewhere
            self.state.publish_best(self.run, result.calibration)

    def out_of_patience(self) -> bool:
        """Whether training has looked in vain as often as `train.patience` allows; it says so once."""
        patience, progress = self.state.recipe.train.patience, self.state.progress
        if patience is None or progress.looks_since_best < patience:
            return False
        if progress.epoch > 0:  # of the first stage that is cut short
            best = f"{patience} looks without a better rSum than {progress.best:.1f}"
            self.emit("note", text=f"stopped early: {best}")
        return True

    def finish(self, new_model: Callable[..., TwoTower], data: Dataset) -> None:
        """Publish what is the run's best at its end: the last weights where nothing validates, else perhaps a
        mix with the first ones, which `new_model` makes; and correct its hubs by the training data."""
        train = self.state.recipe.train
        if self.val is None:
            self.state.publish_best(self.run, None)
        elif train.interpolate:
            self._interpolate(self.val, new_model)
        if train.correct_hubness:
            self._correct_hubness(new_model, data)

    def _look_elsewhere(self, model: TwoTower) -> dict[str, float]:
        """The rSum of a model on the other data that the recipe names, by name."""
        found = {name: validate(model, data).metrics for name, data in self.elsewhere.items()}
        for name, metrics in found.items():
            self.emit("forgetting", data=name, **metrics)
        return {name: metrics["rsum"] for name, metrics in found.items()}

    def _correct_hubness(self, new_model: Callable[..., TwoTower], data: Dataset) -> None:
        """Let the run's best correct its hubs, where that has more rSum on the validation items."""
        model, progress = new_model(adapters=False), self.state.progress
        model.load_state_dict(self._best_weights())
        progress.count(fit_hubness(model, data, stream(self.state.recipe.seed, "hubness")))
        if self.val is None:
            self.emit("hubness", corrected=True)
            self.state.publish_other(self.run, "hubness", model.state_dict(), None)
            return
        result, before = validate(model, self.val), progress.best
        is_better = result.metrics["rsum"] > before
        self.emit("hubness", corrected=is_better, without=before, rsum=result.metrics["rsum"])
        if is_better:
            progress.best, progress.best_metrics = result.metrics["rsum"], result.metrics
            progress.best_elsewhere = self._look_elsewhere(model)
            self.state.publish_other(self.run, "hubness", model.state_dict(), result.calibration)

    def _best_weights(self) -> dict[str, Tensor]:
        """What has been published as the run's best, without the correction of a run that is finished
        again."""
        weights = broadcast_object(lambda: TwoTower.load(self.run.best, "cpu").state_dict())
        return {name: tensor for name, tensor in weights.items() if name not in HUBNESS}

    def _interpolate(self, val: Dataset, new_model: Callable[..., TwoTower]) -> None:
        """Let the run's best be a mix of its best weights with the first ones, where that has more rSum on
        the validation items and the other data together."""
        model, progress = new_model(adapters=False), self.state.progress
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        tuned = {name: tensor.to(model.device) for name, tensor in self._best_weights().items()}
        tried = list(mixes(model, start, tuned, val, self.elsewhere))
        best = max(tried, key=lambda mix: mix.total)
        is_better = best.total > progress.best + sum(progress.best_elsewhere.values())
        rsums = {f"{mix.share:g}": mix.result.metrics["rsum"] for mix in tried} | {"1": progress.best}
        others = {f"{mix.share:g}": mix.elsewhere for mix in tried} | {"1": progress.best_elsewhere}
        self.emit("interpolation", share=best.share if is_better else 1.0, rsums=rsums, elsewhere=others)
        if is_better:
            progress.best, progress.best_metrics = best.result.metrics["rsum"], best.result.metrics
            progress.best_elsewhere = best.elsewhere
            chosen = mixed(start, tuned, best.share)
            self.state.publish_other(self.run, "mixed", chosen, best.result.calibration)
