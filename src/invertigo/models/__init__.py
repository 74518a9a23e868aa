"""The field's reference models, written small, and the user's own."""

from invertigo.domains.graph_step import graph_step
from invertigo.models.building import build, options_of, registry
from invertigo.models.convnet import ConvNet
from invertigo.models.gat import GAT
from invertigo.models.gcn import GCN
from invertigo.models.geometric import from_geometric, refuse_geometric
from invertigo.models.graph_network import GraphNetwork, graph_task
from invertigo.models.lenet import LeNet
from invertigo.models.mlp import MLP
from invertigo.models.resnet import ResNet
from invertigo.models.user import load_factory, resolve
from invertigo.models.vgg import VGG
from invertigo.models.vit import ViT
from invertigo.models.weights import load_weights

__all__ = [
    "GAT",
    "GCN",
    "MLP",
    "VGG",
    "ConvNet",
    "GraphNetwork",
    "LeNet",
    "ResNet",
    "ViT",
    "build",
    "from_geometric",
    "graph_step",
    "graph_task",
    "load_factory",
    "load_weights",
    "options_of",
    "refuse_geometric",
    "registry",
    "resolve",
]
