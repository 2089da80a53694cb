#include "tests/cuda/tensor.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "tests/cuda/emulator.hpp"

namespace emulator
{

enum { LANES = 32, MOST_THREADS = 1024 };

static const unsigned ALL = 0xffffffffu;

static int thread_number()
{
    const position &at = here();

    return (int)(at.thread.x + at.block_dim.x * (at.thread.y + at.block_dim.y * at.thread.z));
}

[[noreturn]] static void give_up(const char *why)
{
    fprintf(stderr, "emulator: %s (block %u, thread %d)\n", why, here().block.x, thread_number());
    abort();
}

/* ---- matrices ---- */

/* What a lane brings to an instruction: a row of 8 elements, or its registers. */
struct contribution {
    uint16_t row[8];
    uint32_t a[4], b[2];
};

/* Of the last two instructions, as no lane is further ahead of its warp than one. */
static contribution brought[2][MOST_THREADS];
static uint8_t turn[MOST_THREADS];

/* Returns those of the lane's warp. */
static const contribution *bring(const contribution &mine)
{
    int thread = thread_number(), at = turn[thread] ^= 1;

    brought[at][thread] = mine;
    (void)exchange(ALL, 0, lane());
    return &brought[at][thread / LANES * LANES];
}

void load_matrices(uint32_t (&out)[4], const void *row, bool transposed)
{
    contribution mine;
    const contribution *rows;

    if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
        give_up("ldmatrix wants addresses of 16 bytes");
    memcpy(mine.row, row, sizeof(mine.row));
    rows = bring(mine);
    for (int m = 0; m < 4; m++) {
        /* Thread i has elements 2 i and 2 i + 1 of the 64, row by row. */
        int first = 2 * lane(), r = first / 8, c = first % 8;
        uint32_t low = transposed ? rows[8 * m + c].row[r] : rows[8 * m + r].row[c];
        uint32_t high = transposed ? rows[8 * m + c + 1].row[r] : rows[8 * m + r].row[c + 1];

        out[m] = low | high << 16;
    }
}

static float widened(uint32_t pair, int i)
{
    uint32_t bits = i == 0 ? pair << 16 : pair & 0xffff0000u;
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* By element number i of the manual: where does (row, col) lie? */
static float a_at(const contribution *lanes, int row, int col)
{
    int group = row % 8, in_group = col % 8 / 2;
    int i = col % 2 + (row >= 8 ? 2 : 0) + (col >= 8 ? 4 : 0);

    return widened(lanes[group * 4 + in_group].a[i / 2], i % 2);
}

static float b_at(const contribution *lanes, int row, int col)
{
    int in_group = row % 8 / 2, i = row % 2 + (row >= 8 ? 2 : 0);

    return widened(lanes[col * 4 + in_group].b[i / 2], i % 2);
}

void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    contribution mine;
    const contribution *lanes;

    memcpy(mine.a, a, sizeof(mine.a));
    mine.b[0] = b0;
    mine.b[1] = b1;
    lanes = bring(mine);
    for (int i = 0; i < 4; i++) {
        int row = lane() / 4 + (i < 2 ? 0 : 8), col = lane() % 4 * 2 + (i & 1);
        float sum = c[i];

        for (int k = 0; k < 16; k++)
            sum += a_at(lanes, row, k) * b_at(lanes, k, col);
        c[i] = sum;
    }
}

/* ---- copies ---- */

struct copy {
    void *to;
    const void *from;
    int bytes, there;
};

struct copies {
    std::deque<std::vector<copy>> groups; /* committed, oldest first */
    std::vector<copy> open;
    uint3 block;
};

static copies pending[MOST_THREADS];

static void do_copy(const copy &c)
{
    memcpy(c.to, c.from, (size_t)c.there);
    memset(static_cast<char *>(c.to) + c.there, 0, (size_t)(c.bytes - c.there));
}

static copies &own_copies()
{
    copies &mine = pending[thread_number()];
    uint3 block = here().block;

    if ((!mine.groups.empty() || !mine.open.empty()) &&
        (mine.block.x != block.x || mine.block.y != block.y || mine.block.z != block.z))
        give_up("a block before this one ended with copies on their way");
    mine.block = block;
    return mine;
}

void copy_async(void *to, const void *from, int bytes, int there)
{
    if (reinterpret_cast<uintptr_t>(to) % (unsigned)bytes != 0 ||
        reinterpret_cast<uintptr_t>(from) % (unsigned)bytes != 0)
        give_up("cp.async wants addresses of whole pieces");
    if (here().block.x / 2 % 2 != 0)
        do_copy({to, from, bytes, there}); /* what lay there must not be needed any more */
    else
        own_copies().open.push_back({to, from, bytes, there});
}

void copy_commit()
{
    copies &mine = own_copies();

    mine.groups.push_back(std::move(mine.open));
    mine.open.clear();
}

void copy_wait(int pending_groups)
{
    copies &mine = own_copies();

    while ((int)mine.groups.size() > pending_groups) {
        for (const copy &c : mine.groups.front())
            do_copy(c);
        mine.groups.pop_front();
    }
}

} // namespace emulator
