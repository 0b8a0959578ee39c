from visrep.data.preprocess import Preprocess as Preprocess
from visrep.errors import UserError as UserError
from visrep.nn.classifier import Classifier as Classifier
from visrep.nn.heads import MLP as MLP
from visrep.nn.resnet import ResNet as ResNet
from visrep.weights.encoder_file import Encoder as Encoder
from visrep.weights.encoder_file import EncoderFile as EncoderFile
from visrep.weights.encoder_file import save_encoder as save_encoder
from visrep.weights.encoder_file import write_encoder as write_encoder
from visrep.weights.foreign import Choice as Choice
from visrep.weights.reading import load_classifier as load_classifier
from visrep.weights.reading import load_encoder as load_encoder
from visrep.weights.reading import read_weights as read_weights

__version__: str
