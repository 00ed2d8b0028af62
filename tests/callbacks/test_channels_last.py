"""The layout in memory changes, and nothing else does."""

import torch

from lightning_priors.callbacks import ChannelsLast


def test_weights_and_feature_maps_have_the_layout(looker, data, make_trainer):
    module, seen = looker(), []
    module.classifier.backbone.register_forward_hook(lambda part, inputs, features: seen.append(features))
    make_trainer(ChannelsLast(), max_epochs=1).fit(module, datamodule=data())
    convolution = module.classifier.backbone.model.blocks[1][0]
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.weight.is_contiguous()
    assert all(features.is_contiguous(memory_format=torch.channels_last) for features in seen)


def test_training_gives_the_same_weights_up_to_rounding(looker, data, make_trainer):
    states = []
    for callbacks in ([], [ChannelsLast()]):
        trainer = make_trainer(*callbacks, max_epochs=1)
        module = looker()
        before = {name: value.clone() for name, value in module.named_parameters()}
        trainer.fit(module, datamodule=data())
        assert all(not torch.equal(value, before[name]) for name, value in module.named_parameters())
        states.append(module.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-3, atol=1e-5)
