"""Whether a network overfits, underfits, or neither, and what follows from that."""

from regularity.diagnosis._diagnose import diagnose as diagnose
from regularity.diagnosis._diagnosis import Diagnosis as Diagnosis
