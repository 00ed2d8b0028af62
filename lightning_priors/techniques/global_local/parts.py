"""Parts of a picture: the boxes to cut them out with, finding them, and putting their evidence back in its place."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.functional.guidance import attention_bce_loss, masked_mean
from lightning_priors.functional.precision import at_least_float32
from lightning_priors.functional.prior_maps import boxes_to_grid

SHARPNESS = 3
"""The power of a cell's coverage that it counts with: many cells that might be covered do not outweigh the few that
are. On photographs of birds the overlap with annotated boxes is .65 with 1.5, .69 with 2, .71 with 3, .70 with 4."""


def ratio(numerator: int, denominator: int) -> Tensor:
    """Divides two lengths; as a tensor on the CPU, which an export for pictures of any size can hold.

    Returns:
        () float64; it takes the number format and the device of what it is multiplied with, as a number does.

    >>> torch.ones(1) * ratio(3, 4)
    tensor([0.7500])
    """
    return torch.full((), numerator, dtype=torch.float64) / denominator


def square_boxes(boxes: Tensor, scale: float = 1.0, minimum: float = 1.0) -> Tensor:
    """Draws squares about the centres of boxes, so that a crop keeps its proportions.

    Args:
        boxes: (N, 4) xyxy in pixels.
        scale: Side of the square relative to the longer side of the box.
        minimum: The least side in pixels.

    Returns:
        (N, 4) xyxy in pixels; may reach outside the picture.

    >>> square_boxes(torch.tensor([[2.0, 2.0, 6.0, 4.0]]), scale=1.5)
    tensor([[1., 0., 7., 6.]])
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True).clamp(min=minimum / scale) * scale / 2
    return torch.cat([centre - half, centre + half], 1)


def jitter_boxes(boxes: Tensor, strength: float) -> Tensor:
    """Moves and resizes boxes at random, so that a network does not rely on exact crops.

    Args:
        boxes: (N, 4) xyxy in pixels.
        strength: Greatest shift as a fraction of the sides, and greatest change of the sides' logarithm.

    Returns:
        (N, 4) xyxy in pixels; the boxes themselves for strength 0.

    >>> jitter_boxes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), 0.0)
    tensor([[0., 0., 4., 2.]])
    """
    if strength == 0:
        return boxes
    random = (2 * torch.rand(len(boxes), 3, device=boxes.device, dtype=boxes.dtype) - 1) * strength
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + random[:, :2] * sides
    half = sides / 2 * random[:, 2:].exp()
    return torch.cat([centre - half, centre + half], 1)


def ellipse_windows(boxes: Tensor, size: int) -> Tensor:
    """Marks what of a square crop about each box lies within the ellipse that touches the box's sides.

    An ellipse holds a rounded target, such as a bird, and leaves out most of the background in the crop's corners.

    Args:
        boxes: (N, 4) xyxy in pixels; their shape matters, not their size. `square_boxes` gives the crops.
        size: Side in pixels of the crops after resizing.

    Returns:
        (N, size, size), 1 where a pixel's centre lies within, 0 elsewhere.

    >>> ellipse_windows(torch.tensor([[0.0, 0.0, 8.0, 4.0]]), size=6).int()
    tensor([[[0, 0, 0, 0, 0, 0],
             [0, 0, 0, 0, 0, 0],
             [1, 1, 1, 1, 1, 1],
             [1, 1, 1, 1, 1, 1],
             [0, 0, 0, 0, 0, 0],
             [0, 0, 0, 0, 0, 0]]], dtype=torch.int32)
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    radii = sides / sides.amax(1, keepdim=True)
    place = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) * (2 / size) - 1
    x, y = ((place / radii[:, axis, None]).square() for axis in (0, 1))
    return (x[:, None, :] + y[:, :, None] < 1).to(boxes.dtype)


def peak_boxes(evidence: Tensor, image_size: Sequence[int], threshold: float = 0.5) -> Tensor:
    """Draws the box around the peak of an evidence map.

    The map is cut at a share of its maximum and the box is drawn around the connected region that holds the peak (Zhou
    et al. 2016, "Learning Deep Features for Discriminative Localization", section 3.2, who cut at 0.2 to find whole
    objects). Cells that touch at a side are connected.

    Args:
        evidence: (B, h, w), positive where the picture speaks for a class.
        image_size: Height H and width W in pixels.
        threshold: Share of the maximum, in (0, 1]; a higher one gives a smaller box.

    Returns:
        (B, 4) xyxy in pixels, on the lines between the cells. A map without positive evidence gives the cell of its
        maximum.

    >>> peak_boxes(torch.tensor([[[0.0, 4.0, 3.0], [0.0, 0.0, 0.0]]]), image_size=(20, 30))
    tensor([[10.,  0., 30., 10.]])
    """
    evidence = at_least_float32(evidence)
    maximum = evidence.amax((1, 2), keepdim=True)
    strong = ((maximum > 0) & (evidence >= threshold * maximum)) | (evidence == maximum)
    region = _region_of_peak(evidence, strong)
    (height, width), (rows, columns) = image_size, evidence.shape[1:]
    top, bottom = (place.to(evidence.dtype) for place in _first_and_end(region.any(2)))
    left, right = (place.to(evidence.dtype) for place in _first_and_end(region.any(1)))
    across, down = ratio(width, columns), ratio(height, rows)
    return torch.stack([left * across, top * down, right * across, bottom * down], 1)


def spread_boxes(covered: Tensor, image_size: Sequence[int]) -> Tensor:
    """Finds the box whose centre and spread are those of a map of what is covered.

    A box of side s that is covered evenly has the variance s^2 / 12 along that side; so has a map of cells, with the
    variance within a cell added to that of the cells' centres.

    Args:
        covered: (B, h, w), not negative.
        image_size: Height H and width W in pixels.

    Returns:
        (B, 4) xyxy in pixels: for a map of ones in a rectangle of cells that rectangle; the middle of the picture for a
        map of zeros.

    >>> spread_boxes(torch.tensor([[[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]), image_size=(20, 30))
    tensor([[10.,  0., 30., 10.]])
    """
    total, ends = covered.sum((1, 2)), []
    for side, axis in ((image_size[1], 1), (image_size[0], 2)):
        share = covered.sum(axis)
        count = share.shape[1]
        cell = ratio(side, count)
        place = (torch.arange(count, device=covered.device, dtype=covered.dtype) + 0.5) * cell
        share = torch.where(total[:, None] > 0, share / total[:, None], ratio(1, count).to(share))
        centre = (share * place).sum(1)
        variance = (share * (place - centre[:, None]).square()).sum(1) + cell**2 / 12
        half = (3 * variance).sqrt()
        ends.append((centre - half, centre + half))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1)


def covered_boxes(logits: Tensor, image_size: Sequence[int]) -> Tensor:
    """Finds the boxes of parts from how much of each cell they cover.

    Args:
        logits: (B, K, h, w), whose sigmoid is how much of a cell part K covers.
        image_size: Height H and width W in pixels.

    Returns:
        (B, K, 4) xyxy in pixels, with sides of at least a cell.

    >>> covered_boxes(torch.tensor([[[[-50.0, 50.0, 50.0], [-50.0, -50.0, -50.0]]]]), image_size=(20, 30))
    tensor([[[10.,  0., 30., 10.]]])
    """
    covered = logits.sigmoid() ** SHARPNESS
    return spread_boxes(covered.flatten(0, 1), image_size).view(*covered.shape[:2], 4)


def coverage_loss(logits: Tensor, boxes: Tensor, valid: Tensor, image_size: Sequence[int]) -> Tensor:
    """Compares how much of each cell parts cover with their boxes: the mean binary cross entropy of annotated parts.

    All cells learn from every box, which with few images finds parts better than a detector of centres, whose box only
    one cell learns.

    Args:
        logits: (B, K, h, w).
        boxes: (B, K, 4) xyxy in pixels; those that are not valid may hold anything finite.
        valid: (B, K) bool.
        image_size: Height H and width W in pixels.

    Returns:
        (); zero, still part of the graph, when no part is annotated.

    >>> box, logits = torch.tensor([[[10.0, 0.0, 30.0, 10.0]]]), torch.zeros(1, 1, 2, 3)
    >>> coverage_loss(logits, box, torch.tensor([[True]]), image_size=(20, 30))
    tensor(0.6931)
    """
    each = valid.flatten()
    covered = boxes_to_grid(boxes.flatten(0, 1)[:, None], each[:, None], image_size, logits.shape[2:])
    return masked_mean(attention_bce_loss(logits.flatten(0, 1), covered.to(logits)), each)


def paste_maps(
    maps: Tensor, boxes: Tensor, owner: Tensor, count: int, image_size: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Puts the maps of crops back to where the crops were cut out.

    Each cell's evidence is spread evenly over the area that it came from. The mean of a map is kept: a class activation
    map that is the mean of its logit stays so, as long as the crop lies in the picture; what was cut from outside the
    picture is put on the picture's border.

    Args:
        maps: (N, K, p, q) class activation maps of the crops.
        boxes: (N, 4) xyxy in pixels of the picture, where they were cut.
        owner: (N,) int64, the picture each crop belongs to.
        count: Number of pictures B.
        image_size: Height H and width W of the pictures in pixels.
        size: Height h and width w of the result.

    Returns:
        (B, K, h, w); the sum over the crops of a picture.

    >>> maps = torch.full((1, 1, 2, 2), 3.0)
    >>> box = torch.tensor([[0.0, 0.0, 5.0, 5.0]])
    >>> paste_maps(maps, box, torch.tensor([0]), count=1, image_size=(10, 10), size=(2, 2))
    tensor([[[[12.,  0.],
              [ 0.,  0.]]]])
    """
    maps = at_least_float32(maps)
    down = _shares(boxes[:, 1], boxes[:, 3], maps.shape[2], image_size[0], size[0]).to(maps)
    across = _shares(boxes[:, 0], boxes[:, 2], maps.shape[3], image_size[1], size[1]).to(maps)
    density = ratio(size[0] * size[1], maps.shape[2] * maps.shape[3])
    with torch.autocast(maps.device.type, enabled=False):  # matrix products, which autocast would round
        pasted = density * (down.transpose(1, 2).unsqueeze(1) @ maps @ across.unsqueeze(1))
    canvas = pasted.new_zeros(count, *pasted.shape[1:])
    return canvas.index_add(0, owner, pasted)


def _shares(start: Tensor, end: Tensor, pieces: int, length: int, cells: int) -> Tensor:
    """(N, pieces, cells): how each of equal pieces of [start, end] divides over the cells of [0, length].

    Rows add up to 1; the pieces outside count for the first or last cell.
    """
    edges = torch.linspace(0, 1, pieces + 1, device=start.device, dtype=start.dtype)
    edges = (start[:, None] + (end - start)[:, None] * edges) * ratio(cells, length)
    lines = torch.arange(1, cells, device=start.device, dtype=start.dtype)
    # how much of each piece lies before each line between two cells; beyond the borders there is no line
    width = (edges[:, 1:] - edges[:, :-1]).unsqueeze(2)
    before = ((lines - edges[:, :-1].unsqueeze(2)) / width).clamp(0, 1)
    return torch.diff(F.pad(F.pad(before, (1, 0)), (0, 1), value=1.0), dim=2)


def _region_of_peak(evidence: Tensor, strong: Tensor) -> Tensor:
    """(B, h, w) bool: the cells of `strong` (B, h, w) that are connected with the maximum."""
    region = strong & (evidence == evidence.amax((1, 2), keepdim=True))
    if torch.compiler.is_exporting():  # the same loop, as an operator
        grow = lambda now, before: (_grown(now, strong), now.clone())  # noqa: E731
        return torch.while_loop(_differs, grow, (region, ~region))[0]  # type: ignore[no-any-return, no-untyped-call]
    while not torch.equal(grown := _grown(region, strong), region):
        region = grown
    return region


def _grown(region: Tensor, strong: Tensor) -> Tensor:
    """The cells of `strong` (B, h, w) that are in a region (B, h, w) or touch it at a side."""
    near = region | F.pad(region[:, 1:], (0, 0, 0, 1)) | F.pad(region[:, :-1], (0, 0, 1, 0))
    near = near | F.pad(region[:, :, 1:], (0, 1)) | F.pad(region[:, :, :-1], (1, 0))
    return near & strong


def _differs(region: Tensor, before: Tensor) -> Tensor:
    """() bool: whether a region has changed."""
    return (region != before).any()


def _first_and_end(profile: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) index of the first true entry of a profile (B, n), and one past the last."""
    first = profile.int().argmax(1)
    end = profile.shape[1] - profile.flip(1).int().argmax(1)
    return first, end
