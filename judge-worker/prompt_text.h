/* prompt_text.h - the data files of prompts/, as they are compiled in
 *
 * Each is the file's bytes without its final newline. */
#ifndef HA_JUDGE_WORKER_PROMPT_TEXT_H
#define HA_JUDGE_WORKER_PROMPT_TEXT_H

extern const char ha_judge_text_system[];       /* paper/system.txt */
extern const char ha_judge_text_paper_user[];   /* paper/user.txt */
extern const char ha_judge_text_guarded_user[]; /* guarded/user.txt */
extern const char ha_judge_text_reask[];        /* reask.txt, with its leading blank line */

#endif
