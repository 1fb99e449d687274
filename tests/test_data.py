"""`shuffle_within_shards`: every example once an epoch, in an order that is new and, with a seed, known."""

import itertools
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn.data import shuffle_within_shards


@pytest.fixture
def files(tmp_path):
    """Five files; in that number s the examples are s0, s1, ..."""
    paths = [tmp_path / f"shard-{s}.tfrecord" for s in range(5)]
    for s, path in enumerate(paths):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for i in range(20 + s):
                writer.write(f"{s}-{i}".encode())
    return paths


EXAMPLES = {f"{s}-{i}" for s in range(5) for i in range(20 + s)}


def epoch(dataset):
    return [x.numpy().decode() for x in dataset]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"seed": 3},
        {"buffer_size": 1},
        {"buffer_size": 7, "cycle_length": 2},
        {"cycle_length": 1},
        {"block_length": 4, "cycle_length": 3},
        {"num_parallel_calls": 2},
        {"num_parallel_calls": tf.data.AUTOTUNE, "cycle_length": 2},
    ],
    ids=str,
)
def test_each_example_once_an_epoch(files, arguments):
    dataset = shuffle_within_shards(files, **arguments)
    for _ in range(2):
        examples = epoch(dataset)
        assert len(examples) == len(EXAMPLES) and set(examples) == EXAMPLES
    twice = Counter(epoch(dataset.repeat(2)))
    assert set(twice) == EXAMPLES and set(twice.values()) == {2}


@pytest.mark.parametrize("parallel", [None, 2])
def test_a_seed_gives_the_same_epochs_again(files, parallel):
    arguments = {"seed": 5, "cycle_length": 3, "num_parallel_calls": parallel}
    first, second = (
        [epoch(dataset) for dataset in itertools.repeat(shuffle_within_shards(files, **arguments), 3)] for _ in range(2)
    )
    assert first == second
    assert first != [epoch(shuffle_within_shards(files, **arguments | {"seed": 6})) for _ in range(3)]
    repeated = epoch(shuffle_within_shards(files, **arguments).repeat(3))
    assert repeated == list(itertools.chain(*first))


@pytest.fixture
def global_seed():
    """Sets the global seed, and puts it out of the way of other tests."""
    yield tf.random.set_seed
    tf.random.set_seed(7)


def test_a_global_seed_counts_as_in_tensorflow(files, global_seed):
    """It is mixed with the seed of the shuffle, or takes the place of one; 0 is a seed like any other."""
    epochs = {}
    for arguments in ({"seed": 5}, {}):
        for number in (0, 1, 0):
            global_seed(number)
            new = epoch(shuffle_within_shards(files, **arguments))
            assert epochs.setdefault((number, *arguments), new) == new
            within_first = epochs.setdefault((number, "first", *arguments), within(0, new))
            assert within_first == within(0, new)
    assert len({tuple(examples) for examples in epochs.values()}) == 8
    global_seed(0)
    tf.random.uniform([])
    before = tf.random.uniform([])
    global_seed(0)
    tf.random.uniform([])
    next(iter(shuffle_within_shards(files, seed=1)))
    assert tf.random.uniform([]) == before  # the global seed is what it was


def test_without_a_seed_runs_differ(files):
    assert epoch(shuffle_within_shards(files)) != epoch(shuffle_within_shards(files))


def within(shard, examples):
    return [x for x in examples if x.startswith(f"{shard}-")]


def test_shards_and_examples_within_them_come_in_a_new_order_in_each_epoch(files):
    dataset = shuffle_within_shards(files, seed=1, cycle_length=1)
    epochs = [epoch(dataset) for _ in range(4)]
    orders = [tuple(dict.fromkeys(x[0] for x in examples)) for examples in epochs]
    assert len(set(orders)) > 1
    for shard in range(5):
        assert len({tuple(within(shard, examples)) for examples in epochs}) == 4
    # Nor are two shards, whose examples have the same numbers, in the same order.
    numbers = [[x.split("-")[1] for x in within(shard, epochs[0]) if int(x.split("-")[1]) < 20] for shard in range(5)]
    assert len({tuple(n) for n in numbers}) == 5


def test_the_order_within_a_shard_is_uniform():
    """All 24 orders of four examples, each as often as chance has it."""
    shards = tf.data.Dataset.range(8).window(4)
    dataset = shuffle_within_shards(shards, seed=2, cycle_length=2).repeat(600).batch(8)
    orders = Counter(tuple(x for x in examples if x < 4) for examples in dataset.as_numpy_iterator())
    assert sum(orders.values()) == 600 and len(orders) == 24
    # Chi-squared with 23 degrees of freedom is above 64 once in 100,000 times; the seed makes it the same each time.
    assert sum((n - 25) ** 2 / 25 for n in orders.values()) < 64


def test_shards_are_interleaved(files):
    examples = epoch(shuffle_within_shards(files, seed=1, cycle_length=3, block_length=2))
    blocks = [{x[0] for x in examples[i : i + 2]} for i in range(0, 60, 2)]
    assert all(len(block) == 1 for block in blocks)
    assert len(set.union(*blocks[:3])) == 3 and blocks[:3] == blocks[3:6]


def test_memory_is_bounded():
    """Of a shard no more is read ahead than its buffer; no more shards are open than `cycle_length`."""
    read = Counter()

    def reader(shard):
        def example(i):
            def count(shard):
                read[int(shard)] += 1
                return shard

            return tf.py_function(count, [shard], tf.int64)

        return tf.data.Dataset.range(100).map(example)

    shards = tf.data.Dataset.range(6)
    dataset = shuffle_within_shards(shards, reader, buffer_size=10, cycle_length=2, seed=0)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    dataset, seen = dataset.with_options(options), Counter()
    for x in itertools.islice(dataset.as_numpy_iterator(), 50):
        seen[int(x)] += 1
        assert sum(read.values()) <= sum(seen.values()) + 2 * 10
        assert len(read) <= 2


def test_kinds_of_input(files, tmp_path):
    names = [str(path) for path in files]
    for shards in (names, tuple(files), tf.data.Dataset.from_tensor_slices(names)):
        reader = tf.data.TFRecordDataset if isinstance(shards, tf.data.Dataset) else None
        assert set(epoch(shuffle_within_shards(shards, reader))) == EXAMPLES
    assert set(epoch(shuffle_within_shards(files[0]))) == {f"0-{i}" for i in range(20)}
    assert set(epoch(shuffle_within_shards(str(files[0])))) == {f"0-{i}" for i in range(20)}
    text = tmp_path / "lines.txt"
    text.write_text("a\nb\nc\n")
    assert sorted(epoch(shuffle_within_shards([text], tf.data.TextLineDataset))) == ["a", "b", "c"]
    unknown = tf.data.Dataset.from_tensor_slices(names).filter(lambda name: True)
    assert unknown.cardinality() == tf.data.UNKNOWN_CARDINALITY
    assert set(epoch(shuffle_within_shards(unknown, tf.data.TFRecordDataset))) == EXAMPLES


def test_a_dataset_of_examples_is_one_shard():
    x, y = np.arange(30), np.arange(30) % 3
    dataset = shuffle_within_shards(tf.data.Dataset.from_tensor_slices((x, y)), seed=1)
    first, second = ([(int(a), int(b)) for a, b in dataset] for _ in range(2))
    assert dataset.cardinality() == 30
    assert first != second and sorted(first) == sorted(second) == list(zip(x, y, strict=True))
    nearby = [int(a) for a in shuffle_within_shards(tf.data.Dataset.range(100), buffer_size=5, seed=1)]
    assert all(value <= place + 5 for place, value in enumerate(nearby)) and nearby != sorted(nearby)


def test_a_model_trains_on_it(files):
    dataset = shuffle_within_shards(files, seed=1).map(lambda x: (tf.ones([2]), tf.ones([1]))).batch(10).repeat()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(dataset, epochs=2, steps_per_epoch=11, shuffle=False, verbose=0).history["loss"]
    assert history[1] < history[0]


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"buffer_size": 0}, ValueError, ["`buffer_size`", "not below 1, or None", "buffer_size=0"]),
        ({"cycle_length": 0}, ValueError, ["`cycle_length`", "not below 1", "cycle_length=0"]),
        ({"block_length": 1.5}, ValueError, ["`block_length`", "block_length=1.5"]),
        ({"num_parallel_calls": 0}, ValueError, ["`num_parallel_calls`", "not below 1", "num_parallel_calls=0"]),
        ({"num_parallel_calls": -2}, ValueError, ["`num_parallel_calls`", "num_parallel_calls=-2"]),
        ({"num_parallel_calls": 1.5}, ValueError, ["`num_parallel_calls`", "num_parallel_calls=1.5"]),
        ({"files_or_dataset": []}, ValueError, ["`files_or_dataset`", "at least one shard", "[]"]),
        ({"files_or_dataset": tf.data.Dataset.range(0)}, ValueError, ["`files_or_dataset`", "at least one shard"]),
        (
            {"files_or_dataset": tf.data.Dataset.range(3).repeat()},
            ValueError,
            ["`files_or_dataset`", "must end", "behind"],
        ),
        (
            {"files_or_dataset": tf.data.Dataset.range(4).window(2).repeat()},
            ValueError,
            ["`files_or_dataset`", "must end", "repeat()", "behind"],
        ),
        ({"files_or_dataset": 3}, TypeError, ["`files_or_dataset`", "file name", "3 of type int"]),
        ({"files_or_dataset": [1, 2]}, TypeError, ["[1, 2] of type list", "from_tensor_slices"]),
    ],
    ids=str,
)
def test_errors(arguments, error, parts):
    with pytest.raises(error) as caught:
        shuffle_within_shards(**{"files_or_dataset": ["a"], **arguments})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_parallel_calls": 2},
        {"num_parallel_calls": tf.data.AUTOTUNE, "cycle_length": 2},
        {"buffer_size": 3, "block_length": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("seen", [0, 7, 53, 105, 110, 150])
def test_a_checkpoint_of_the_iterator_resumes_where_it_was(files, tmp_path, arguments, seen):
    """In the first epoch, when all shards are open, at its end, and in the second: 110 examples are an epoch."""

    def iterator():
        return iter(shuffle_within_shards(files, seed=4, **{"cycle_length": 3} | arguments).repeat(3))

    before = iterator()
    for _ in range(seen):
        next(before)
    saved = tf.train.Checkpoint(iterator=before).save(tmp_path / "checkpoint")
    after = iterator()
    next(after)  # what it has seen itself does not count
    tf.train.Checkpoint(iterator=after).restore(saved)
    rest = epoch(after)
    assert rest == epoch(before) and len(rest) == 3 * len(EXAMPLES) - seen
