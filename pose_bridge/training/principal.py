# SPDX-License-Identifier: Apache-2.0
"""A video autoencoder's start: principal components of video, which gradients would take hours to find.

Its norms leave directions only, and its activations bend: so one channel is always there, much larger than
what the others hold, and all are as good as linear. What blocks add begins with next to nothing.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx import LTXVideoResnetBlock3d
from torch import Tensor, nn

ALWAYS = 8.0  # in the last channel
SMALL = 0.1  # spread of what is beside it
SLOPE = 0.5  # of SiLU at nothing
NEXT_TO_NOTHING = 3e-5  # from which channels that are not needed yet may grow
LOG_VARIANCE = -8.0  # of what is packed
CAUSAL, MIDDLE = (2, 1, 1), (1, 1, 1)  # the tap, of 3x3x3, that sees what is in its own place
PAIR = (slice(1, 3),) * 3  # the taps that see what two by two by two are packed into one


@torch.no_grad()
def begin(vae: AutoencoderKLLTXVideo, video: Tensor) -> None:
    """Set an autoencoder that halves once, in all three directions, to the principal components of videos.

    Args:
        vae: With one block on either side, and more channels than a patch has numbers.
        video: In [-1, 1], (B, 3, N, H, W), N odd.
    """
    encoder, decoder = vae.encoder, vae.decoder
    down, up = encoder.down_blocks[0].downsamplers[0], decoder.up_blocks[0].upsamplers[0]
    for module in vae.modules():
        if isinstance(module, LTXVideoResnetBlock3d):
            _next_to_nothing(module.conv2)
    patches = _patches(vae, video)
    middle, components, spread = _components(patches, vae.config.latent_channels)
    count, raw = len(components), patches.shape[1]
    numbers, packed = torch.arange(raw), torch.arange(count)
    pieces, widths = components.unflatten(1, (raw, 2, 2, 2)), spread[:, None, None, None, None]

    for convolution in (encoder.conv_in, down, encoder.conv_out, decoder.conv_in, up.conv, decoder.conv_out):
        _next_to_nothing(convolution)
    encoder.conv_in.conv.weight[(numbers, numbers, *CAUSAL)] = 1.0
    down.conv.weight[(slice(count), slice(raw), *PAIR)] = SMALL * pieces / widths
    down.conv.bias[:count] = -SMALL * (components @ middle) / spread
    down.conv.bias[-1] = ALWAYS
    encoder.conv_out.conv.weight[(packed, packed, *CAUSAL)] = _gain(encoder.conv_out)
    encoder.conv_out.conv.bias[-1] = LOG_VARIANCE

    decoder.conv_in.conv.weight[(packed, packed, *MIDDLE)] = SMALL
    decoder.conv_in.conv.bias[-1] = ALWAYS
    whole = up.conv.conv.weight.view(-1, 2, 2, 2, *up.conv.conv.weight.shape[1:])
    whole[(slice(raw), *(slice(None),) * 3, slice(count), *MIDDLE)] = (pieces * widths).permute(1, 2, 3, 4, 0)
    bias = up.conv.conv.bias.view(-1, 2, 2, 2)
    bias[:raw] = SMALL * middle.view(raw, 2, 2, 2)
    bias[-1] = ALWAYS
    decoder.conv_out.conv.weight[(numbers, numbers, *MIDDLE)] = _gain(decoder.conv_out)


def _gain(last: nn.Module) -> float:
    """What makes up for the norm and the activation before a last convolution."""
    return float(ALWAYS / last.conv.in_channels**0.5 / SMALL / SLOPE)


def _next_to_nothing(convolution: nn.Module) -> None:
    nn.init.normal_(convolution.conv.weight, std=NEXT_TO_NOTHING)
    nn.init.zeros_(convolution.conv.bias)


def _patches(vae: AutoencoderKLLTXVideo, video: Tensor) -> Tensor:
    """Videos as the first convolution sees them, (B, numbers of a patch, N, rows, columns)."""
    seen: list[Tensor] = []
    hook = vae.encoder.conv_in.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    vae.encoder(video)
    hook.remove()
    return seen[0]


def _components(patches: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, (K,), principal components, (count, K), and their spread, of 2x2x2 patches each."""
    pieces = patches[:, :, 1:].unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    pieces = pieces.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)
    middle = pieces.mean(dim=0)
    _, values, components = torch.linalg.svd(pieces - middle, full_matrices=False)
    return middle, components[:count], values[:count] / len(pieces) ** 0.5
