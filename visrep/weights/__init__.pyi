from visrep import Encoder as Encoder
from visrep import EncoderFile as EncoderFile
from visrep import load_classifier as load_classifier
from visrep import load_encoder as load_encoder
from visrep import read_weights as read_weights
from visrep import save_encoder as save_encoder
from visrep import write_encoder as write_encoder
