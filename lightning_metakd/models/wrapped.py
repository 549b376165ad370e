"""Any network as a Model: a user's own, or torchvision's.

The classifier is found, taken out of the network and becomes the head; what it was fed with becomes
the embedding. What the network computes after its classifier (a log-softmax, say) still runs, on the
embedding, but is not part of the logits.
"""

from copy import deepcopy

from torch import Tensor, nn

from lightning_metakd.models.model import Maps, Model, linear_head, recording, the_tensor


class Wrapped(Model):
    """A network of any origin as body and head; the network that was given stays as it was.

    Args:
        module: the network, called with the images alone.
        head: path of its classifier, an nn.Linear, as in 'classifier.3'; the default is its last
            nn.Linear in order of registration.
        n_classes: size of a new head; 0 for learners that bring their own, none keeps the
            network's classifier.

    Raises:
        ValueError: if no classifier is found, or its path does not exist.
    """

    def __init__(
        self,
        module: nn.Module,
        head: str | None = None,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.module = deepcopy(module)
        self.classifier = find_classifier(module) if head is None else head
        linear = linear_at(self.module, self.classifier)
        self.embedding_width = linear.in_features
        self.module.set_submodule(self.classifier, nn.Identity())
        self.head = linear if n_classes is None else linear_head(linear.in_features, n_classes)

    @property
    def tapped(self) -> nn.Module:
        return self.module

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        """What the classifier is fed with."""
        with recording(self.module, [self.classifier]) as seen:
            self.module(x)
        embedding = the_tensor(self.classifier, seen[self.classifier]).flatten(1)
        if embedding.shape != (len(x), self.embedding_width):
            raise ValueError(
                f"the classifier {self.classifier!r} is fed with {list(embedding.shape)}, not one "
                f"vector of {self.embedding_width} per row; give another path as head."
            )
        return embedding, {}


def as_model(module: nn.Module) -> Model:
    """A Model as it is; any other network wrapped as one, with its last linear layer as head."""
    return module if isinstance(module, Model) else Wrapped(module)


def find_classifier(module: nn.Module) -> str:
    """Path of the last linear layer in order of registration."""
    found = [name for name, layer in module.named_modules() if name and type(layer) is nn.Linear]
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no nn.Linear that could be its classifier; "
            "add one, or write the network as a models.model.Model."
        )
    return found[-1]


def linear_at(module: nn.Module, path: str) -> nn.Linear:
    """The linear layer at this path."""
    layer = dict(module.named_modules()).get(path)
    if not path or not isinstance(layer, nn.Linear):
        what = "no module" if layer is None else f"a {type(layer).__name__}"
        linears = [n for n, m in module.named_modules() if n and isinstance(m, nn.Linear)]
        raise ValueError(
            f"head={path!r} is {what} of {type(module).__name__}, but must be an nn.Linear; "
            f"choose from {', '.join(linears) or 'none: it has no nn.Linear'}."
        )
    return layer
