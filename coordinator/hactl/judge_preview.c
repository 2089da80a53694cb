#include "coordinator/hactl/judge_preview.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"
#include "common/io/file.h"
#include "coordinator/hactl/capture.h"

static const char example_prompt[] = "\n\nHuman: What are good hats against the sun?\n\nAssistant:";
static const char example_answer[] = "A hat with a wide brim shades face and neck.";

static int show(const char *file, struct ha_json **ret_preview, struct ha_error *err)
{
    const char *arguments[] = {"ha-judge-worker", "show",     "--grid-judge", file, "--prompt-text",
                               example_prompt,    "--answer", example_answer, NULL};
    char *text;
    int r = ha_capture(arguments, &text, err);

    if (r < 0)
        return r;
    r = ha_json_parse(text, strlen(text), "ha-judge-worker show", ret_preview, err);
    free(text);
    return r;
}

int ha_judge_preview(const struct ha_sweep_judge *judge, struct ha_json **ret_preview,
                     struct ha_error *err)
{
    struct ha_json *json = ha_section_json(&ha_sweep_judge_section, judge, 0);
    char *text = json ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;
    char dir[] = "/tmp/ha-judge-XXXXXX", *file;
    int r;

    ha_json_destroy(json);
    if (!text)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (!mkdtemp(dir)) {
        r = ha_error_set(err, errno, "cannot make a folder in /tmp: %s", strerror(errno));
        free(text);
        return r;
    }
    file = ha_format("%s/judge.json", dir);
    r = file ? ha_file_write(file, text, strlen(text), 0600, err)
             : ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (r == 0)
        r = show(file, ret_preview, err);
    if (r < 0)
        (void)ha_error_prefix(err, "judge %s", judge->name);
    if (file)
        (void)unlink(file);
    (void)rmdir(dir);
    free(file);
    free(text);
    return r;
}
