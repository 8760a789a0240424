"""The mask codebook: a small autoencoder that says a mask in sixteen of 128 codes (a VQ-VAE), and its training.

The layers and their names are those of big_vision's ``vae-oid.npz``, with fewer channels. Only the decoder is needed
to read an answer; `npgemma.segmentation` has it in NumPy.

References: van den Oord et al., arXiv 1711.00937 (vector quantisation; appendix A.1: moving averages); Ning et al.,
arXiv 2301.02229 (masks as codes).
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from conversion.codebook import CODES

CHANNELS, CODE_WIDTH = 32, 64
# How fast moving averages forget, and how strongly the encoder is held to the codes it uses.
DECAY, COMMITMENT = 0.99, 0.25
# A code whose average use in a batch falls under this is moved to where it is needed.
LEAST_USE = 0.05


class ResidualBlock(nn.Module):
    """Adds to its input what two 3 x 3 convolutions and one 1 x 1 make of it."""

    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x):
        """Run the block."""
        return x + self.net(x)


class Codes(nn.Module):
    """The 128 vectors, moved to the means of what is assigned to them (moving averages, no gradient)."""

    def __init__(self, codes, width):
        super().__init__()
        self.register_buffer("_embedding", torch.randn(codes, width) / width**0.5)
        self.register_buffer("_ema_w", self._embedding.clone())
        self.register_buffer("_ema_cluster_size", torch.ones(codes))

    def nearest(self, vectors):
        """Return the numbers of the nearest codes of vectors (..., width)."""
        return torch.cdist(vectors.flatten(0, -2), self._embedding).argmin(dim=1).view(vectors.shape[:-1])

    @torch.no_grad()
    def follow(self, vectors, chosen):
        """Move the codes towards the vectors that chose them, and codes without use onto some of the vectors."""
        assigned = F.one_hot(chosen, len(self._embedding)).to(vectors.dtype)
        self._ema_cluster_size.mul_(DECAY).add_(assigned.sum(dim=0), alpha=1 - DECAY)
        self._ema_w.mul_(DECAY).add_(assigned.T @ vectors, alpha=1 - DECAY)
        unused = (self._ema_cluster_size < LEAST_USE).nonzero()[:, 0]
        picked = torch.randperm(len(vectors), device=vectors.device)[: len(unused)]
        self._ema_w[unused[: len(picked)]] = vectors[picked]
        self._ema_cluster_size[unused[: len(picked)]] = 1.0
        self._embedding.copy_(self._ema_w / self._ema_cluster_size[:, None])


class Codebook(nn.Module):
    """Encoder, codes and decoder; the published one has 128 channels in the inner layers (divisible by 8), and 512 a
    code.
    """

    def __init__(self, channels=CHANNELS, code_width=CODE_WIDTH):
        super().__init__()
        halving = [channels // 8, channels // 4, channels // 2, channels]
        doubling = [channels, channels, channels // 2, channels // 4, channels // 8]
        encoder, decoder = [], [nn.Conv2d(code_width, channels, 1), nn.ReLU()]
        for before, after in itertools.pairwise([1, *halving]):
            encoder += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        encoder += [ResidualBlock(channels), ResidualBlock(channels), nn.Conv2d(channels, code_width, 1)]
        decoder += [ResidualBlock(channels), ResidualBlock(channels)]
        for before, after in itertools.pairwise(doubling):
            decoder += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        decoder += [nn.Conv2d(channels // 8, 1, 1)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self._vq_vae = Codes(CODES, code_width)

    def vectors(self, masks):
        """Encode masks (B, 64, 64) of 0 to 1: vectors (B, 4, 4, width)."""
        return self.encoder(2 * masks[:, None] - 1).permute(0, 2, 3, 1)

    @torch.no_grad()
    def encode(self, masks):
        """Say masks (B, 64, 64) of 0 to 1 in codes (B, 16), in reading order."""
        return self._vq_vae.nearest(self.vectors(masks)).flatten(1)

    def codes_of(self, masks):
        """Say any number of masks, arrays (64, 64), in codes (number, 16)."""
        if not masks:
            return torch.zeros((0, 16), dtype=torch.long)
        return self.encode(torch.from_numpy(np.stack(masks)))

    def decode(self, vectors):
        """Turn vectors (B, 4, 4, width) into masks (B, 64, 64): over 0 is inside."""
        return self.decoder(vectors.permute(0, 3, 1, 2))[:, 0]

    def loss(self, masks):
        """Return the loss of masks (B, 64, 64) of 0 to 1, and how what comes out agrees with them; move the codes.

        ``overlap`` is the mean part that both share of what they cover together; ``codes``, how many are in use.
        """
        vectors = self.vectors(masks)
        chosen = self._vq_vae.nearest(vectors.detach())
        codes = self._vq_vae._embedding[chosen]
        # The gradient passes the choice as if it were not there.
        through = vectors + (codes - vectors).detach()
        found = self.decode(through)
        loss = F.mse_loss(found, 2 * masks - 1) + COMMITMENT * F.mse_loss(vectors, codes)
        self._vq_vae.follow(vectors.detach().flatten(0, 2), chosen.flatten())
        inside, right = found > 0, masks > 0.5
        overlap = ((inside & right).sum((1, 2)) / (inside | right).sum((1, 2))).mean()
        return loss, {"overlap": overlap, "codes": (self._vq_vae._ema_cluster_size > LEAST_USE).sum()}
