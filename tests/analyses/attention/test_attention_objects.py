"""The object queries of detectors: a prediction's own row of the attention, as transformers gives it."""

import huggingface_networks as networks
import numpy as np
import pytest
import torch

import vistool as vt
from vistool.errors import InputError

SIZE = (64, 96)
CLASSES = ('cat', 'dog', 'car', 'bus')


@pytest.fixture(scope='module')
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize('name', ['detr', 'yolos'])
def test_the_attention_of_a_prediction_is_that_of_its_object_query(name, image):
    network = networks.built(getattr(networks, name))
    result = vt.Attention(queries=['#0', '#3'])(vt.load(network, classes=CLASSES), image)
    network.set_attn_implementation('eager')
    with torch.no_grad():
        output = network(pixel_values=image[None], output_attentions=True)
    scores = output.logits[0].softmax(-1)[:, :-1].amax(1).argsort(descending=True)
    if name == 'detr':
        weights, before, grid = output.cross_attentions[-1][0], 0, (2, 3)
    else:
        weights, before, grid = output.attentions[-1][0][:, :, 1:97], 97, (8, 12)
    assert [each.number for each in result.instances] == [0, 3]
    for item in result:
        row = weights[:, before + int(scores[item.coordinates['instance']])]
        head = item.coordinates['head']
        expected = row.mean(0) if head == 'mean' else row[head]
        np.testing.assert_allclose(item.values, expected.reshape(grid).numpy(), atol=1e-5)


def test_the_query_is_named_after_the_prediction(image):
    network = networks.built(networks.detr)
    result = vt.Attention(queries='#1')(vt.load(network, classes=CLASSES), torch.stack([image, image.flip(2)]))
    for each in result:
        assert {item.coordinates['query'] for item in each} == {f'#1 {each.instances[0].name}'}


@pytest.mark.parametrize(
    ('network', 'query', 'message'),
    [
        (lambda: networks.built(networks.detr), '#900', 'queries: no prediction 900; accepted: #0 to #5'),
        (lambda: torch.nn.Conv2d(3, 4, 3), '#0', 'queries: Conv2d is not a detector'),
    ],
)
def test_what_has_no_object_query_is_said(network, query, message, image):
    with pytest.raises(InputError) as caught:
        vt.Attention(queries=query)(vt.load(network(), classes=CLASSES), image)
    assert str(caught.value).startswith(message)
