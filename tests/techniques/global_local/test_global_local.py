"""Global and local branches: separate in training, fused in the answer."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.ops import box_iou, roi_align

from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import evidence_map
from lightning_priors.priors import AuxiliaryTasks, Restriction
from lightning_priors.techniques import Combined, GlobalLocal, Pretrained
from lightning_priors.techniques.global_local.crops import Crops
from lightning_priors.techniques.global_local.parts import peak_boxes, square_boxes


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def constant(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_each_branch_is_to_the_bit_what_a_run_of_its_own_gives(fit, squares, factor: float) -> None:
    """Also where the local backbone has a learning rate of its own."""
    torch.manual_seed(5)
    both = GlobalLocal(
        fusion="gate", crop_size=16, jitter=0.0, local_lr_factor=factor, optimizer=sgd, scheduler=constant
    )
    alone = Pretrained(optimizer=sgd, scheduler=constant)
    alone.classifier.load_state_dict(both.global_branch.state_dict())
    local = copy.deepcopy(both.local_branch)
    fit(both, epochs=2, shuffle=False)
    fit(alone, epochs=2, shuffle=False)
    optimizer = sgd([{"params": local.head.parameters()}, {"params": local.backbone.parameters(), "lr": 0.05 * factor}])
    for _ in range(2):
        for batch in DataLoader(squares(24), batch_size=8):
            boxes = square_boxes(batch["part_boxes"][:, 0], 1.5)
            crops = roi_align(batch["image"], list(boxes[:, None]), 16, aligned=True)
            optimizer.zero_grad()
            F.cross_entropy(local(crops)[0], batch["label"]).backward()
            optimizer.step()
    for name, value in alone.classifier.state_dict().items():
        assert torch.equal(both.global_branch.state_dict()[name], value), name
    for name, value in local.state_dict().items():
        assert torch.equal(both.local_branch.state_dict()[name], value), name


@pytest.mark.parametrize("joint", [False, True])
def test_the_fused_loss_reaches_the_branches_only_if_joint(batch, joint: bool) -> None:
    module = GlobalLocal(fusion="concatenation", crop_size=16, joint=joint, locator="cam")
    fused = module.step(batch()).terms["fused"]
    branches = [*module.global_branch.parameters(), *module.local_branch.parameters()]
    gradients = torch.autograd.grad(fused, branches, allow_unused=True)
    reached = [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients]
    assert any(reached) is joint
    assert all(g is not None for g in torch.autograd.grad(module.step(batch()).loss, list(module.parameters())))


@pytest.mark.parametrize("fusion", ["mean", "weights", "concatenation", "gate"])
def test_the_map_adds_up_to_the_fused_logits(batch, fusion) -> None:
    module = GlobalLocal(num_classes=3, fusion=fusion, crop_size=16).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = batch()["image"].double()
    logits, cam = module.explain(image)
    whole = module.look_at_whole(image)
    crops = module.found_crops(image, whole)
    _, weights = module.fuse(whole, module.look_at_crops(image, crops), crops.owner)
    heads = (module.global_branch.head, module.local_branch.head)
    bias = weights[:, :1] * heads[0].bias + weights[:, 1:] * heads[1].bias
    if fusion == "concatenation":
        bias = module.fusion.classify.bias
    torch.testing.assert_close(cam.mean((2, 3)) + bias, logits)
    assert torch.equal(module(image), logits)


def test_evidence_of_the_local_branch_stands_in_its_box(batch) -> None:
    module = GlobalLocal(fusion="weights", crop_size=16).eval()
    module.fusion.weights.data = torch.tensor([0.0, 1.0])
    image = batch()["image"]
    whole = module.look_at_whole(image)
    boxes = torch.tensor([[8.0, 16.0, 16.0, 24.0]]).expand(6, 4)
    _, cam = module.explain_with(image, whole, Crops(boxes, torch.arange(6), boxes))
    outside = torch.ones(4, 4, dtype=torch.bool)
    outside[2, 1] = False  # cells of 8 pixels
    assert cam[:, :, outside].abs().max() == 0
    assert cam[:, :, 2, 1].abs().min() > 0


def test_the_locator_learns_from_detached_features(batch) -> None:
    module, sample = GlobalLocal(crop_size=16), batch()
    term = module.step(sample).terms["locator"]
    names = [name for name, _ in module.named_parameters()]
    gradients = torch.autograd.grad(term, list(module.parameters()), allow_unused=True)
    reached = {name.split(".")[0] for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    assert reached == {"part_finder"}


def test_the_learned_locator_finds_the_squares(fit, squares) -> None:
    trainer = fit(GlobalLocal(fusion="mean", crop_size=16, crop_scale=1.0, lr=3e-3), epochs=30)
    module = trainer.lightning_module.eval()
    sample = next(iter(DataLoader(squares(24), batch_size=24)))
    with torch.no_grad():
        found = module.found_crops(sample["image"], module.look_at_whole(sample["image"]))
    overlap = torch.diagonal(box_iou(found.boxes, sample["part_boxes"][:, 0]))
    assert overlap.mean() > 0.5


def test_the_cam_locator_takes_the_peak_of_the_predicted_class(batch) -> None:
    module, image = GlobalLocal(crop_size=16, locator="cam", peak_threshold=0.7).eval(), batch()["image"]
    whole = module.look_at_whole(image)
    evidence = evidence_map(whole.cam, whole.logits.argmax(1))
    expected = square_boxes(peak_boxes(evidence, (32, 32), threshold=0.7))
    crops = module.found_crops(image, whole)
    assert torch.equal(crops.boxes, expected)
    assert torch.equal(crops.owner, torch.arange(6))


def test_a_step_asks_the_locator_once(batch) -> None:
    """What it finds and what it learns come from one pass, so each image enters its running statistics once."""
    module, sample = GlobalLocal(crop_size=16, found_parts=True), batch()
    sample["part_valid"][1:] = False
    module.step(sample)
    assert module.part_finder.locator is not None
    assert module.part_finder.locator.predict[1].num_batches_tracked == 1


def test_found_parts_train_the_local_branch_where_none_is_annotated(batch) -> None:
    sample = batch()
    sample["part_valid"][1:] = False
    image = sample["image"]
    for found_parts, expected in ((False, [0]), (True, [0, 1, 2, 3, 4, 5])):
        module = GlobalLocal(crop_size=16, found_parts=found_parts, jitter=0.0).eval()
        seen: list[torch.Tensor] = []
        original = module.look_at_crops

        def watched(image, crops, target, seen=seen, original=original):
            seen.append(crops)
            return original(image, crops, target)

        module.look_at_crops = watched
        step = module.step(sample)
        assert seen[0].owner.tolist() == expected
        logits = original(image, seen[0]).logits
        torch.testing.assert_close(step.terms["local"], F.cross_entropy(logits, sample["label"][seen[0].owner]))


def test_several_parts_are_found(batch) -> None:
    module, image = GlobalLocal(crop_size=16, num_parts=3).eval(), batch(2)["image"]
    crops = module.found_crops(image, module.look_at_whole(image))
    assert crops.owner.tolist() == [0, 0, 0, 1, 1, 1]
    assert module(image).shape == (2, 2)


def test_panels_are_told_which_crop_was_found(batch) -> None:
    module, image = GlobalLocal(crop_size=16).eval(), batch()["image"]
    with torch.no_grad():
        part = module.explain_maps(image)["part"]
        left, top, right, bottom = module.found_crops(image, module.look_at_whole(image)).boxes.clamp(0, 32).unbind(1)
    torch.testing.assert_close(part.sum((1, 2)), (right - left) * (bottom - top))
    assert part.shape == (6, 32, 32)


def test_an_image_without_a_part_is_left_to_the_global_branch(batch) -> None:
    module, sample = GlobalLocal(fusion="weights", crop_size=16, jitter=0.0).eval(), batch()
    sample["part_valid"][::2] = False
    logits = module.step(sample).logits
    whole, _ = module.global_branch(sample["image"])
    torch.testing.assert_close(logits[::2], whole[::2])
    assert not torch.allclose(logits[1::2], whole[1::2])


def test_boxes_of_absent_parts_change_nothing(batch) -> None:
    module = GlobalLocal(crop_size=16, jitter=0.0)
    losses = []
    for content in (0.0, 9.0):
        sample = batch()
        sample["part_valid"][::2] = False
        sample["part_boxes"][::2] = content
        losses.append(module.step(sample).loss)
    assert torch.equal(*losses)


def test_a_batch_without_any_part_still_gives_every_parameter_a_gradient(batch) -> None:
    """Otherwise DistributedDataParallel would wait for it."""
    module, sample = GlobalLocal(crop_size=16), batch()
    sample["part_valid"][:] = False
    step = module.step(sample)
    assert step.terms["local"] == 0
    gradients = torch.autograd.grad(step.loss, list(module.local_branch.parameters()))
    assert all((gradient == 0).all() for gradient in gradients)


def test_several_parts_share_the_local_network_and_are_averaged(batch) -> None:
    module, sample = GlobalLocal(fusion="mean", crop_size=16, jitter=0.0, num_parts=2).eval(), batch(2)
    first, second = torch.tensor([0.0, 0, 16, 16]), torch.tensor([8.0, 8, 24, 24])
    single = []
    for box in (first, second):
        one = {**sample, "part_boxes": box.expand(2, 1, 4), "part_valid": torch.ones(2, 1, dtype=torch.bool)}
        crops = module.annotated_crops(one)
        single.append(module.look_at_crops(sample["image"], crops).logits)
    sample["part_boxes"] = torch.stack([first, second]).expand(2, 2, 4)
    sample["part_valid"] = torch.tensor([[True, True], [False, True]])
    whole, _ = module.global_branch(sample["image"])
    local = torch.stack([(single[0][0] + single[1][0]) / 2, single[1][1]])
    torch.testing.assert_close(module.step(sample).logits, (whole + local) / 2)


def test_jitter_moves_the_crops_of_training_only(batch) -> None:
    torch.manual_seed(0)
    module, sample = GlobalLocal(crop_size=16, jitter=0.3).eval(), batch()
    assert not torch.equal(module.step(sample).terms["local"], module.step(sample).terms["local"])
    assert torch.equal(module(sample["image"]), module(sample["image"]))


def test_what_is_logged_and_that_the_oracle_is_not_the_answer(fit, squares) -> None:
    trainer = fit(GlobalLocal(fusion="mean", crop_size=16), epochs=3)
    metrics = trainer.callback_metrics
    assert {"val/acc", "val/acc_global", "val/acc_local", "val/acc_oracle"} <= set(metrics)
    module = trainer.lightning_module.eval()
    sample = next(iter(DataLoader(squares(8), batch_size=8)))
    with torch.no_grad():
        found = module(sample["image"])
        annotated = module.annotated_crops(sample)
        whole = module.look_at_whole(sample["image"])
        oracle, _ = module.fuse(whole, module.look_at_crops(sample["image"], annotated), annotated.owner)
    for key, logits in (("acc", found), ("acc_oracle", oracle), ("acc_global", whole.logits)):
        assert metrics[f"val/{key}"].item() == pytest.approx(
            (logits.argmax(1) == sample["label"]).float().mean().item()
        )
    assert not torch.allclose(found, oracle)


def test_branches_come_from_earlier_runs_and_stay_frozen(fit, tmp_path: Path) -> None:
    fit(earlier := Pretrained(num_classes=2)).save_checkpoint(tmp_path / "global.ckpt")
    fit(other := GlobalLocal(crop_size=16)).save_checkpoint(tmp_path / "both.ckpt")
    module = GlobalLocal(
        fusion="gate",
        crop_size=16,
        global_checkpoint=str(tmp_path / "global.ckpt"),
        local_checkpoint=str(tmp_path / "both.ckpt"),
        freeze_branches=True,
    )
    before = module.fusion.gate.weight.clone()
    trainer = fit(module, epochs=2)
    for name, value in earlier.classifier.state_dict().items():
        assert torch.equal(module.global_branch.state_dict()[name], value), name
    for name, value in other.local_branch.state_dict().items():
        assert torch.equal(module.local_branch.state_dict()[name], value), name
    assert not torch.equal(before, module.fusion.gate.weight)
    assert "train/loss_local" not in trainer.callback_metrics


def test_branches_of_earlier_runs_can_be_tuned_further(fit, tmp_path: Path) -> None:
    fit(earlier := Pretrained()).save_checkpoint(tmp_path / "global.ckpt")
    module = GlobalLocal(crop_size=16, global_checkpoint=str(tmp_path / "global.ckpt"))
    fit(module, epochs=1, limit_train_batches=0)
    torch.testing.assert_close(module.global_branch.state_dict(), earlier.classifier.state_dict())
    fit(module)
    assert not torch.equal(module.global_branch.head.weight, earlier.classifier.head.weight)


def test_a_checkpoint_of_another_shape_is_refused(fit, tmp_path: Path) -> None:
    fit(Pretrained(num_classes=5)).save_checkpoint(tmp_path / "five.ckpt")
    module = GlobalLocal(crop_size=16, global_checkpoint=str(tmp_path / "five.ckpt"))
    with pytest.raises(PriorError, match=r"five.ckpt does not fit: 2 of 26 entries, such as head.weight"):
        fit(module)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(PriorError, match="leaves nothing to train"):
        GlobalLocal(fusion="mean", freeze_branches=True)
    with pytest.raises(PriorError, match="priors have nothing to act on"):
        GlobalLocal(fusion="gate", priors=[Restriction()], freeze_branches=True)


def test_priors_act_on_the_global_branch(batch) -> None:
    """Its loss and theirs are what a classifier with these priors has; the local branch sees nothing of them."""
    torch.manual_seed(0)
    module = GlobalLocal(crop_size=16, jitter=0.0, priors=[Restriction(weight=0.7), AuxiliaryTasks([4, 3])])
    alone = Combined(priors=[Restriction(weight=0.7), AuxiliaryTasks([4, 3])])
    alone.classifier.load_state_dict(module.global_branch.state_dict())
    alone.priors.load_state_dict(module.priors.state_dict())
    sample = batch(keys=("mask", "part_boxes", "aux_labels"))
    terms, expected = module.step(sample).terms, alone.step(sample).terms
    assert terms.keys() == (expected.keys() - {"primary"}) | {"global", "local", "fused", "locator"}
    torch.testing.assert_close(terms["global"], expected.pop("primary"))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    local = list(module.local_branch.parameters())
    for name in ("restriction", "aux0", "aux1"):
        found = torch.autograd.grad(terms[name], local, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found)


def test_the_local_network_sees_the_ellipse_alone(batch) -> None:
    """What lies in the corners of a crop changes nothing; in a square window it does."""
    sample, same = batch(size=64), {}
    box = sample["part_boxes"][0, 0] = torch.tensor([8.0, 16.0, 56.0, 48.0])
    sample["part_valid"][:] = False
    sample["part_valid"][0, 0] = True
    changed = sample["image"].clone()
    changed[0, :, :14, :18] = 5.0  # above the box, and in its corner
    for window in ("square", "ellipse"):
        module = GlobalLocal(crop_size=32, crop_scale=1.0, window=window, jitter=0.0).eval()
        crops = module.annotated_crops(sample)
        assert torch.equal(crops.parts, box[None])
        looks = [module.look_at_crops(image, crops).logits for image in (sample["image"], changed)]
        same[window] = torch.equal(*looks)
    assert same == {"square": False, "ellipse": True}


def test_the_local_network_learns_nothing_from_exchanged_backgrounds(batch) -> None:
    """The colour of the backgrounds is the label; exchanged it says nothing."""
    gains = {}
    for exchange in (False, True):
        torch.manual_seed(0)
        module = GlobalLocal(crop_size=16, exchange_background=exchange, weights="none")
        optimizer = torch.optim.Adam(module.local_branch.parameters(), lr=1e-2)
        for _ in range(40):
            sample = batch(16)
            background = (1 - sample["mask"]).unsqueeze(1) * (6.0 * sample["label"] - 3).view(-1, 1, 1, 1)
            sample["image"] = torch.where(sample["mask"].unsqueeze(1) > 0, torch.randn(16, 3, 32, 32), background)
            optimizer.zero_grad()
            loss = module.step(sample).terms["local"]
            loss.backward()
            optimizer.step()
        gains[exchange] = loss.item()
    assert gains[False] < 0.1
    assert gains[True] > 0.4


def test_targets_without_a_mask_are_found_as_the_other_masks_teach_it(batch) -> None:
    torch.manual_seed(0)
    module, sample = GlobalLocal(crop_size=16, exchange_background=True, locator="cam"), batch(16, size=64)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    sample["mask_valid"][1:] = False
    masks = sample["mask"].clone()
    sample["mask"][1:] = 0.0  # what an image without an annotation carries
    for _ in range(60):
        optimizer.zero_grad()
        module.step(sample).loss.backward()
        optimizer.step()
    whole = module.look_at_whole(sample["image"])
    box = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(16, 4)
    module.crop_size = 64
    found = module._targets(sample, whole.parts.target.detach(), Crops(box, torch.arange(16), box))
    assert torch.equal(found[0], masks[0]), "the mask that is known"
    overlap = (found * masks).sum((1, 2)) / torch.maximum(found, masks).sum((1, 2))
    assert overlap[1:].mean() > 0.5
    assert overlap[1:].max() < 1
    finder = module.look_at_whole(sample["image"]).parts.target.sum()
    assert all(
        g is None for g in torch.autograd.grad(finder, list(module.global_branch.parameters()), allow_unused=True)
    )


def test_exchanging_backgrounds_needs_masks(batch) -> None:
    with pytest.raises(PriorError, match=r"GlobalLocal needs batch\['mask'\]"):
        GlobalLocal(exchange_background=True)._require(batch(keys=("part_boxes",)))


def test_the_fusion_begins_with_the_share_that_was_given(batch) -> None:
    for fusion in ("mean", "weights", "gate"):
        module, sample = GlobalLocal(fusion=fusion, local_share=0.9, crop_size=16).eval(), batch()
        whole, crops = module.look_at_whole(sample["image"]), module.annotated_crops(sample)
        _, weights = module.fuse(whole, module.look_at_crops(sample["image"], crops), crops.owner)
        torch.testing.assert_close(weights, torch.tensor([[0.1, 0.9]]).expand(6, 2))


def test_a_share_that_the_fusion_cannot_have_is_said() -> None:
    with pytest.raises(PriorError, match="fusion concatenation has no local_share"):
        GlobalLocal(fusion="concatenation", local_share=0.9)
