"""LSTMs that run in eager mode, in captured graphs and in ONNX: over whole texts, and word by word for a decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init


class LSTMLayer(nn.Module):
    """One LSTM direction with the parameters and the arithmetic of `torch.nn.LSTM`.

    `nn.LSTM` itself serves eager mode only. Measured on torch 2.14: Dynamo refuses it ("Dynamo does not support RNN,
    GRU, or LSTM"), the function `torch.lstm` passes Dynamo but fails in AOTAutograd and in Inductor, and both
    `torch.export` and the ONNX exporter fix the length of its input. So this layer uses the fused kernel in eager mode,
    one ONNX operator in an ONNX graph, a scan in a program of `torch.export`, whose length stays free, and plain steps
    over time in any other captured graph.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self):
        """Initialise uniformly, as `nn.LSTM` does."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, length, input_size)` to `(batch, length, hidden_size)`, starting from zero states."""
        if torch.onnx.is_in_onnx_export():
            return self.onnx_forward(inputs)
        hidden = inputs.new_zeros(inputs.shape[0], self.hidden_size)
        if not torch.compiler.is_compiling():
            weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
            state = (hidden[None], hidden[None])
            # `train=True` (no dropout in it) lets cuDNN give gradients in eval mode too, which explanations need.
            return torch.lstm(inputs, state, weights, True, 1, 0.0, True, False, True)[0]
        gates = functional.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh)
        if torch.compiler.is_exporting():
            return self.scan(gates, (hidden, torch.zeros_like(hidden)))[0]
        cell, steps = hidden, []
        for step in range(inputs.shape[1]):
            hidden, cell = self.step((hidden, cell), gates[:, step])
            steps.append(hidden)
        return torch.stack(steps, dim=1)

    def step(self, state: tuple[Tensor, Tensor], gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden and cell state `(batch, hidden_size)` after one word, from its `gates`, biases included."""
        hidden, cell = state
        entry, forget, candidate, exit_ = (gates + functional.linear(hidden, self.weight_hh)).chunk(4, -1)
        cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
        return exit_.sigmoid() * cell.tanh(), cell

    def scan(self, gates: Tensor, start: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs and last state for `gates` `(batch, length, 4 * hidden_size)`, biases included, of any length.

        A loop in Python would be written into an exported program once per word of the example.
        """
        from torch._higher_order_ops.scan import scan

        def step(state: tuple[Tensor, Tensor], gates: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
            hidden, cell = self.step(state, gates)
            # No tensor is returned twice, as operators of higher order demand.
            return (hidden, cell), hidden.clone()

        last, outputs = scan(step, start, gates.transpose(0, 1), dim=0)
        return outputs.transpose(0, 1), last

    def onnx_forward(self, inputs: Tensor) -> Tensor:
        """Compute the same as one ONNX operator, whose layout is time first."""
        # PyTorch orders the gates as input, forget, cell, output; ONNX as input, output, forget, cell.
        starts = [gate * self.hidden_size for gate in (0, 3, 1, 2)]
        weight_ih, weight_hh, *biases = (
            torch.cat([block[start : start + self.hidden_size] for start in starts])[None]
            for block in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        )
        batch, length = inputs.shape[:2]
        outputs = torch.onnx.ops.symbolic(
            "LSTM",
            (inputs.transpose(0, 1), weight_ih, weight_hh, torch.cat(biases, dim=1)),
            {"hidden_size": self.hidden_size},
            dtype=inputs.dtype,
            shape=(length, 1, batch, self.hidden_size),
        )
        return outputs[:, 0].transpose(0, 1)


class BidirectionalLSTM(nn.Module):
    """Stacked bidirectional LSTM over real tokens only, equal to `nn.LSTM` on packed sequences.

    Real tokens are moved to the front and the backward direction starts at the last real one, so that no state ever
    passes over padding, wherever the padding is. Dropout acts between layers.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float):
        super().__init__()
        sizes = [input_size] + [2 * hidden_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(LSTMLayer(size, hidden_size) for size in sizes)
        self.backward_layers = nn.ModuleList(LSTMLayer(size, hidden_size) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run over `(batch, length, input_size)` with a boolean mask `(batch, length)`; at least one token per row.

        Returns:
            The last states of both directions `(batch, 2 * hidden_size)`, the outputs
            `(batch, length, 2 * hidden_size)` with real tokens first, and their mask.
        """
        lengths = mask.sum(dim=1, keepdim=True)
        steps = torch.arange(mask.shape[1], device=mask.device)[None]
        # Keys below zero at real tokens, of which no two are equal: ONNX knows no stable sorting.
        order = torch.argsort(torch.where(mask, steps - steps[:, -1:] - 1, steps), dim=1)
        states = gather_steps(inputs, order)
        mask = steps < lengths
        mirror = torch.where(mask, lengths - 1 - steps, steps)  # its own inverse
        for number, (ahead, back) in enumerate(zip(self.forward_layers, self.backward_layers, strict=True)):
            if number:
                states = self.dropout(states)
            left = ahead(states)
            right = back(gather_steps(states, mirror))
            states = torch.cat([left, gather_steps(right, mirror)], dim=-1)
        last_left = gather_steps(left, lengths - 1)[:, 0]
        last_right = gather_steps(right, lengths - 1)[:, 0]
        return torch.cat([last_left, last_right], dim=-1), states, mask


def gather_steps(states: Tensor, steps: Tensor) -> Tensor:
    """Return `states` `(batch, length, size)` of each row at its `steps` `(batch, n)`, as `(batch, n, size)`."""
    return states.gather(1, steps[..., None].expand(-1, -1, states.shape[-1]))


class LSTMState:
    """State of an LSTM after the words so far, in the place of a cache of keys and values."""

    is_compileable = False

    def __init__(self):
        self.hidden: Tensor | None = None
        self.cell: Tensor | None = None
        self.length = 0

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the number of words read."""
        return self.length

    def reorder_cache(self, beams: Tensor) -> None:
        """Select the states of the beams that continue."""
        if self.hidden is not None and self.cell is not None:
            self.hidden, self.cell = self.hidden.index_select(1, beams), self.cell.index_select(1, beams)


class LSTMDecoder(LSTMLayer):
    """Word vectors to states, continuing from the state after earlier words."""

    def forward(self, inputs: Tensor, state: LSTMState | None = None) -> Tensor:
        """Map `(batch, words, input_size)` to `(batch, words, hidden_size)`; `state` is read and updated."""
        start = (inputs.new_zeros(1, inputs.shape[0], self.hidden_size),) * 2
        if state is not None and state.hidden is not None and state.cell is not None:
            start = (state.hidden, state.cell)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if inputs.shape[1] == 1:
            # One word at a time: the fused kernel would spend its time on rearranging the weights.
            hidden, cell = (each[None] for each in torch.lstm_cell(inputs[:, 0], [each[0] for each in start], *weights))
            outputs = hidden.transpose(0, 1)
        elif torch.compiler.is_exporting():
            gates = functional.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh)
            outputs, last = self.scan(gates, (start[0][0], start[1][0].clone()))
            hidden, cell = (each[None] for each in last)
        else:
            outputs, hidden, cell = torch.lstm(inputs, start, weights, True, 1, 0.0, True, False, True)
        if state is not None:
            state.hidden, state.cell = hidden, cell
            state.length += inputs.shape[1]
        return outputs
