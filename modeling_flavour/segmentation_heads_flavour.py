"""DeepLab heads: features of a backbone to a score per class and place."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig


class PooledNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a batch is a single value per channel.

    The picture-wide branch of a head sees one value per picture, so a last batch of one picture has no statistics.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(batch, channels, height, width)`."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


def convolution(inputs: int, outputs: int, size: int, rate: int = 1, norm: type[nn.Module] = nn.BatchNorm2d) -> list:
    """Return the layers of a convolution that keeps the grid, its normalisation and a ReLU."""
    padding = rate * (size // 2)
    return [nn.Conv2d(inputs, outputs, size, padding=padding, dilation=rate, bias=False), norm(outputs), nn.ReLU()]


def resize(states: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Enlarge `(batch, channels, height, width)` to `size`, bilinearly."""
    return functional.interpolate(states, size=size, mode="bilinear", align_corners=False)


class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017): dilated convolutions and the picture's mean, side by side."""

    def __init__(self, inputs: int, channels: int, rates: list[int], dropout: float):
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*convolution(inputs, channels, 1))])
        self.branches.extend(nn.Sequential(*convolution(inputs, channels, 3, rate)) for rate in rates)
        pooled = convolution(inputs, channels, 1, norm=PooledNorm)
        self.branches.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), *pooled))
        self.projection = nn.Sequential(*convolution(len(self.branches) * channels, channels, 1), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        """Map `(batch, inputs, height, width)` to `(batch, channels, height, width)`."""
        found = [branch(features) for branch in self.branches]
        # The branch of the picture's mean has one value per channel, which holds at every place.
        found[-1] = found[-1].expand_as(found[0])
        return self.projection(torch.cat(found, dim=1))


class DeepLabHead(nn.Module):
    """DeepLabV3 as in torchvision, or V3+ when there is a skip from an early stage."""

    def __init__(self, config: PreTrainedConfig, inputs: int, low_level_inputs: int = 0):
        super().__init__()
        channels = joined = config.aspp_channels
        self.pyramid = SpatialPyramid(inputs, channels, config.aspp_rates, config.dropout)
        self.low_level = None
        if low_level_inputs:
            # The early stage is reduced, or its many channels would outweigh those of the pyramid.
            self.low_level = nn.Sequential(*convolution(low_level_inputs, config.low_level_channels, 1))
            joined += config.low_level_channels
        decoder = convolution(joined, channels, 3)
        if low_level_inputs:
            decoder += convolution(channels, channels, 3)
        self.decoder = nn.Sequential(*decoder)
        self.classifier = nn.Conv2d(channels, config.num_labels, 1)

    def forward(self, features: Tensor, low_level: Tensor | None = None) -> Tensor:
        """Return class scores per place, on the grid of the features or, with a skip, of the early stage."""
        states = self.pyramid(features)
        if self.low_level is not None and low_level is not None:
            states = torch.cat([resize(states, low_level.shape[-2:]), self.low_level(low_level)], dim=1)
        return self.classifier(self.decoder(states))


class AuxiliaryHead(nn.Module):
    """A plain head on the stage before the last, which helps the encoder learn; a quarter of its width, as in FCN."""

    def __init__(self, inputs: int, dropout: float, classes: int):
        super().__init__()
        width = max(inputs // 4, 1)
        self.layers = nn.Sequential(*convolution(inputs, width, 3), nn.Dropout(dropout))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return class scores per place."""
        return self.classifier(self.layers(features))
