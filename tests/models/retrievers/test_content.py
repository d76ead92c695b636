import numpy as np
import scipy.sparse as sp

from recspark.models.retrievers import content


def test_profile_by_hand() -> None:
    """Items (1, 0) and (0, 1) with weights 3 and 4: the mean points along (3, 4) / 5; its cosine with (1, 0) is .6."""
    vectors = content.unit(np.array([[2.0, 0.0], [0.0, 5.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(vectors, [[1, 0], [0, 1], [0, 0]])
    history = sp.csr_matrix(np.array([[3.0, 4.0, 9.0]], dtype=np.float32))  # the item without content changes nothing
    profile = content.profiles(history, vectors)
    np.testing.assert_allclose(profile, [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(content.scores(profile, vectors), [[0.6, 0.8, 0.0]], rtol=1e-6)


def test_nothing_known_is_not_scored() -> None:
    vectors = content.unit(np.array([[1.0, 0.0], [0.0, 0.0]]))
    history = sp.csr_matrix(np.array([[0.0, 0.0], [0.0, 1.0]], dtype=np.float32))  # no history; an item without content
    assert not content.scores(content.profiles(history, vectors), vectors).any()
