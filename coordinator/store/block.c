#include "coordinator/store/block.h"

#include "coordinator/store/db.h"

int ha_store_block_open_cell(struct ha_store *store, int64_t model, int64_t result,
                             struct ha_error *err)
{
    int r = ha_db_exec(store, err, "UPDATE model SET open_cells = open_cells + 1 WHERE id = ?", "i",
                       model);

    if (r < 0)
        return r;
    return ha_db_exec(store, err,
                      "INSERT INTO block (model, prompt, sample, answered)"
                      " SELECT ?1, prompt, sample, 1 FROM answer WHERE result = ?2"
                      " ON CONFLICT DO UPDATE SET answered = answered + 1",
                      "ii", model, result);
}

int ha_store_block_close_cell(struct ha_store *store, int64_t model, int64_t result,
                              struct ha_error *err)
{
    int r = ha_db_exec(store, err, "UPDATE model SET open_cells = open_cells - 1 WHERE id = ?", "i",
                       model);

    if (r == 0)
        r = ha_db_exec(store, err,
                       "UPDATE block SET answered = answered - 1 WHERE model = ?1"
                       " AND (prompt, sample) IN"
                       " (SELECT prompt, sample FROM answer WHERE result = ?2)",
                       "ii", model, result);
    return r < 0 ? r : ha_store_block_release(store, model, err);
}

int ha_store_block_answered(struct ha_store *store, int64_t model, int64_t prompt, int64_t sample,
                            struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "INSERT INTO block (model, prompt, sample, answered) VALUES (?, ?, ?, 1)"
                       " ON CONFLICT DO UPDATE SET answered = answered + 1",
                       "iii", model, prompt, sample);

    if (r < 0)
        return r;
    return ha_db_exec(store, err,
                      "UPDATE item SET state = 'ready' WHERE state = 'blocked' AND model = ?1"
                      " AND prompt = ?2 AND answer_sample = ?3 AND EXISTS"
                      " (SELECT 1 FROM block b JOIN model m ON m.id = b.model"
                      " JOIN sweep w ON w.id = m.sweep WHERE b.model = ?1 AND b.prompt = ?2"
                      " AND b.sample = ?3 AND b.answered >= m.open_cells AND w.expanding = 0)",
                      "iii", model, prompt, sample);
}

int ha_store_block_release(struct ha_store *store, int64_t model, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE item SET state = 'ready' WHERE state = 'blocked' AND model = ?1"
                      " AND (prompt, answer_sample) IN"
                      " (SELECT b.prompt, b.sample FROM block b JOIN model m ON m.id = b.model"
                      " JOIN sweep w ON w.id = m.sweep WHERE b.model = ?1"
                      " AND b.answered >= m.open_cells AND w.expanding = 0)",
                      "i", model);
}
