/** SQL for a point in time as ISO 8601 text in UTC, to the millisecond. */
export const isoTime = (time: string) => `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
