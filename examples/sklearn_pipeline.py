"""SwAV in a pipeline of scikit-learn: features without labels, then a classifier on a few."""

import sys

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from swav.data.views.augment import AugmentConfig
from swav.sklearn import SwAVClusters

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
pictures, labels = load_digits(return_X_y=True)  # 8 x 8 pixels in 64 columns
train, test, train_labels, test_labels = train_test_split(
    pictures, labels, random_state=0, stratify=labels
)

swav = SwAVClusters(
    n_clusters=20,
    epochs=epochs,
    image_shape=(8, 8),
    augment=AugmentConfig(flip=0, blur=0),  # a digit in a mirror is none
    random_state=0,
)
pipeline = make_pipeline(swav, StandardScaler(), LogisticRegression(max_iter=2000))
pipeline.fit(train, train_labels)
print(f"accuracy {pipeline.score(test, test_labels):.3f}")
found = pipeline[0].predict(test)
print(f"clusters and digits agree by {adjusted_rand_score(test_labels, found):.3f}")
