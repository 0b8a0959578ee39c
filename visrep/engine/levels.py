"""What a method declares about its own health: where its loss ends when the features collapse."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Reference levels of a method's measures, and the knobs to turn.

    Attributes:
        loss_collapsed: the loss of features that are all alike.
        loss_apart: the loss at the other end: 0 for a cross entropy, which features that are told
            apart bring there; for a loss that a collapse minimises, that of unrelated features.
        knob: what to change when the features fall together.
        stuck: the loss is at its collapsed level for long: is that a collapse by itself (SwAV's
            codes), or only a run that does not learn?
        others: further reference values, by the name of the measure.
    """

    loss_collapsed: float
    loss_apart: float = 0.0
    knob: str
    stuck: bool = False
    others: dict[str, float] = field(default_factory=dict)

    @property
    def minimal(self) -> bool:
        """Does a collapse minimise the loss (BYOL, SimSiam)? Then a low loss alone says nothing."""
        return self.loss_collapsed < self.loss_apart

    def nearness(self, loss: float) -> float:
        """Where `loss` lies between the two ends: 1 and more collapsed, 0 apart."""
        return (loss - self.loss_apart) / (self.loss_collapsed - self.loss_apart)
