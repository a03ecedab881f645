package registry_test

import (
	"context"
	stdsql "database/sql"
	"errors"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestClientReadsOnly: no builder of the client that a registry shows writes a row, in a transaction neither.
func TestClientReadsOnly(t *testing.T) { eachEngine(t, testClientReadsOnly) }

func testClientReadsOnly(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	k := mustKey(t, reg, p.ID, 1)
	record(t, reg, mustModel(t, reg, p.ID, "gpt-4", gpt4()), k, 1, 1)
	before := dump(t, reg)
	requireReadsOnly(ctx, t, reg.Client())
	requireReadsOnly(ctx, t, reg.Client().With(ent.Log(func(...any) {})).Debug())
	require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		requireReadsOnly(ctx, t, tx.Client())
		return tx.InTx(ctx, func(tx *registry.Registry) error {
			requireReadsOnly(ctx, t, tx.Client())
			return nil
		})
	}))
	create := reg.Client().Provider.Create().SetName("x")
	for what, err := range map[string]error{
		"bulk":      reg.Client().Provider.CreateBulk(create, create).Exec(ctx),
		"upsert":    create.OnConflictColumns(provider.FieldID).UpdateNewValues().Exec(ctx),
		"row":       p.Update().SetName("x").Exec(ctx),
		"edge":      must(reg.Client().APIKey.Query().QueryProvider().Only(ctx)).Update().SetName("x").Exec(ctx),
		"row, gone": reg.Client().Provider.DeleteOne(p).Exec(ctx),
	} {
		require.ErrorIs(t, err, registry.ErrReadOnly, what)
	}
	require.Equal(t, before, dump(t, reg))
}

// requireReadsOnly requires that a client reads each entity and writes none, and says which operations do.
func requireReadsOnly(ctx context.Context, t *testing.T, c *ent.Client) {
	t.Helper()
	call := func(v reflect.Value, method string, args ...any) []reflect.Value {
		f := v.MethodByName(method)
		in := make([]reflect.Value, len(args))
		for i, arg := range args {
			if in[i] = reflect.ValueOf(arg); arg == nil {
				in[i] = reflect.Zero(f.Type().In(i))
			}
		}
		return f.Call(in)
	}
	entities := 0
	for i := range reflect.TypeFor[ent.Client]().NumField() {
		name, of := reflect.TypeFor[ent.Client]().Field(i).Name, reflect.ValueOf(c).Elem().Field(i)
		if name == "Schema" || of.Kind() != reflect.Pointer {
			continue
		}
		entities++
		require.Nil(t, call(call(of, "Query")[0], "Count", ctx)[1].Interface(), name)
		for _, builder := range []reflect.Value{
			call(of, "Create")[0], call(of, "Update")[0], call(of, "UpdateOneID", nil)[0],
			call(of, "Delete")[0], call(of, "DeleteOneID", nil)[0],
		} {
			results := call(builder, "Exec", ctx)
			err, _ := results[len(results)-1].Interface().(error)
			require.ErrorIs(t, err, registry.ErrReadOnly, name)
			said := regexp.MustCompile(`^read-only client: (\w+) is written by Registry\.(.*)$`).
				FindStringSubmatch(err.Error())
			require.Len(t, said, 3, err.Error())
			require.Equal(t, name, said[1])
			first := regexp.MustCompile(`^\w+`).FindString(said[2])
			_, there := reflect.TypeFor[*registry.Registry]().MethodByName(first)
			require.True(t, there, err.Error())
		}
	}
	require.Equal(t, 34, entities)
}

// TestClientBreaksNothing: what people do to Ent's clients by habit does nothing to the registry.
func TestClientBreaksNothing(t *testing.T) { eachEngine(t, testClientBreaksNothing) }

func testClientBreaksNothing(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx, c := t.Context(), reg.Client()
	mustProvider(t, reg, "openai")
	require.NoError(t, c.Close())
	require.Error(t, c.Schema.Create(ctx), "Ent does not know what migrations have made of some tables")
	_, err := c.Tx(ctx)
	require.ErrorIs(t, err, registry.ErrReadOnly)
	require.ErrorContains(t, err, "InTx")
	_, err = c.BeginTx(ctx, nil)
	require.ErrorIs(t, err, registry.ErrReadOnly)
	errMine := errors.New("mine")
	hook := func(ent.Mutator) ent.Mutator {
		return ent.MutateFunc(func(context.Context, ent.Mutation) (ent.Value, error) { return nil, errMine })
	}
	see := ent.InterceptFunc(func(ent.Querier) ent.Querier {
		return ent.QuerierFunc(func(context.Context, ent.Query) (ent.Value, error) { return nil, errMine })
	})
	c.Use(hook)
	c.Intercept(see)
	require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		tx.Client().Use(hook)
		tx.Client().Intercept(see)
		require.NoError(t, tx.Client().Close())
		for _, c := range []*ent.Client{tx.Client(), tx.Client().With(), tx.Client().Debug()} {
			require.Error(t, c.Schema.Create(ctx))
			_, err := c.Tx(ctx)
			require.ErrorIs(t, err, registry.ErrReadOnly)
		}
		_, err := tx.CreateProvider(ctx, registry.ProviderInput{Name: "within"})
		require.NoError(t, err, "an operation of the transaction has no hooks of others")
		_, err = tx.Client().ExecContext(ctx, "UPDATE providers SET description = 'past'")
		return err
	}))
	_, err = c.Provider.Query().Count(ctx)
	require.ErrorIs(t, err, errMine, "of the client itself")
	require.Equal(t, "past", must(reg.FindProvider(ctx, "openai")).Description)
	mustModel(t, reg, mustProvider(t, reg, "mistral").ID, "m", gpt4())
}

// TestClientSchema: Ent's own migration changes no file, in a transaction either.
func TestClientSchema(t *testing.T) {
	t.Parallel()
	reg := must(registry.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db")))
	defer func() { require.NoError(t, reg.Close()) }()
	schema := func() (all []string) {
		rows := must(
			reg.Client().QueryContext(t.Context(), "SELECT COALESCE(sql, name) FROM sqlite_master ORDER BY name"),
		)
		for rows.Next() {
			var text string
			require.NoError(t, rows.Scan(&text))
			all = append(all, text)
		}
		require.NoError(t, errors.Join(rows.Err(), rows.Close()))
		return all
	}
	before := schema()
	require.ErrorIs(t, reg.Client().Schema.Create(t.Context()), registry.ErrReadOnly)
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		err := tx.Client().Schema.Create(t.Context(), entmigrate.WithForeignKeys(false))
		require.ErrorIs(t, err, registry.ErrReadOnly)
		return nil
	}))
	require.Equal(t, before, schema())
}

// TestClientTimes: the registry's clock says when rows were written, whatever its operations say.
func TestClientTimes(t *testing.T) { eachEngine(t, testClientTimes) }

func testClientTimes(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx, other := t.Context(), registrytest.Start.AddDate(-1, 0, 0)
	p, err := reg.Past().Provider.Create().SetName("x").SetCreatedAt(other).SetUpdatedAt(other).Save(ctx)
	require.NoError(t, err)
	require.Equal(t, []time.Time{registrytest.Start, registrytest.Start}, []time.Time{p.CreatedAt, p.UpdatedAt})
	clock.Advance(time.Hour)
	p, err = reg.UpdateProvider(ctx, p.ID, registry.ProviderUpdate{Description: ptr("y")})
	require.NoError(t, err)
	require.Equal(t, []time.Time{registrytest.Start, clock.Now()}, []time.Time{p.CreatedAt, p.UpdatedAt})
	require.NoError(t, reg.SetSetting(ctx, "k", "v"))
	require.Equal(t, clock.Now(), must(reg.Client().Setting.Get(ctx, "k")).UpdatedAt)
	entries := must(reg.ListAudit(ctx, registry.AuditFilter{}))
	require.Equal(t, clock.Now(), entries[0].At)
}

// TestOwnClient: a client of somebody's own writes by the rules of the schema alone.
func TestOwnClient(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (string, *ent.Client){
		"sqlite": func(t *testing.T) (string, *ent.Client) {
			t.Helper()
			path := filepath.Join(t.TempDir(), "db")
			require.NoError(t, must(registry.Open(t.Context(), path)).Close())
			c, err := ent.Open(dialect.SQLite, "file:"+path+"?_fk=1")
			require.NoError(t, err)
			return path, c
		},
		"postgres": func(t *testing.T) (string, *ent.Client) {
			t.Helper()
			url := registrytest.PostgresURL(t)
			db, err := stdsql.Open("pgx", url)
			require.NoError(t, err)
			return url, ent.NewClient(ent.Driver(sql.OpenDB(dialect.Postgres, db)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, c := open(t)
			ctx := t.Context()
			err := c.Provider.Create().SetName("BAD NAME!").Exec(ctx)
			require.ErrorContains(
				t, err, `validator failed for field "Provider.name": is not a slug such as openai or z.ai`,
			)
			require.True(t, ent.IsValidationError(err))
			p, err := c.Provider.Create().SetName("openai").Save(ctx)
			require.NoError(t, err)
			for _, at := range []time.Time{p.CreatedAt, p.UpdatedAt} {
				require.Equal(t, time.UTC, at.Location())
				require.Zero(t, at.Nanosecond()%1000)
			}
			m, err := c.Model.Create().SetProvider(p).SetModelID("gpt-4").Save(ctx)
			require.NoError(t, err)
			require.ErrorContains(t, m.Update().SetContextWindow(-1).Exec(ctx), "-1 is not between 0 and 1000000000000")
			updated, err := m.Update().SetContextWindow(8192).Save(ctx)
			require.NoError(t, err)
			require.False(t, updated.UpdatedAt.Before(m.UpdatedAt))
			require.NoError(t, c.Close())

			reg, err := registry.Open(ctx, url)
			require.NoError(t, err)
			defer func() { require.NoError(t, reg.Close()) }()
			require.EqualValues(t, 8192, must(reg.FindModel(ctx, p.ID, "gpt-4")).ContextWindow)
			require.Len(t, must(reg.ListModels(ctx, registry.ModelFilter{ProviderID: p.ID})), 1)
		})
	}
}
