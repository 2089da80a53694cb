#include "coordinator/store/functions.h"

#include "coordinator/core/order.h"
#include "coordinator/store/db.h"

static const char *text_of(sqlite3_value *value)
{
    const unsigned char *text = sqlite3_value_text(value);

    return text ? (const char *)text : "";
}

static void turn(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    sqlite3_result_int64(context, ha_order_turn(sqlite3_value_int64(values[0]), text_of(values[1]),
                                                sqlite3_value_int64(values[2]), text_of(values[3]),
                                                sqlite3_value_int64(values[4]),
                                                sqlite3_value_int64(values[5])));
}

int ha_store_functions(struct ha_store *store, struct ha_error *err)
{
    int code = sqlite3_create_function_v2(store->db, "ha_turn", 6,
                                          SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY,
                                          NULL, turn, NULL, NULL, NULL);

    return code == SQLITE_OK ? 0 : ha_db_error(store, code, "functions", err);
}
